"""Networks of the transformers library: any folder whose class can be exported; sources loads what is not our own here.

The network is exported with its fused attention (sdpa) and compared with the same weights in its written-out form
(eager), which returns its attention. A family without a fused form is exported written out.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from export.traits import Traits
from export.transformers_checkpoint import CLASSIFIERS, Checkpoint, first_line, read_checkpoint
from export.transformers_traits import describe_inputs, find_grid, main_input, resizing
from model.checkpoint import CheckpointError, read_pooling
from model.huggingface import Pooling
from model.text import mean_over_tokens
from server.contract import EmbeddingContract, PatchContract

# What a tower that is trained to be compared with another gives for that.
_PROJECTED = ("text_embeds", "image_embeds")
_TEXT_TOWER = "_text_model"
_ROWS, _SIZE = 2, 8  # of the batch, and of symbolic axes, when it is tried

Pool = Callable[[Any, Tensor, Tensor | None], Tensor | None]


@dataclass(frozen=True)
class Loaded:
    """A network of the library as export needs it."""

    network: "TransformersNetwork"
    traits: Traits
    config: Any


class TransformersNetwork(nn.Module):
    """One network twice, with the same weights: fused, and written out to say what it looked at."""

    def __init__(self, fused: Any, explained: Any, traits: Traits, pool: Pool | None) -> None:
        """Put both together.

        Args:
            fused: In evaluation mode.
            explained: The same with attention written out.
            traits: Of its inputs.
            pool: Makes the vector from the library's output, the last hidden state and the mask; None for none.
        """
        super().__init__()
        self.fused, self.explained, self._pool = fused, explained, pool
        self.input_names = tuple(spec.name for spec in traits.inputs)
        self.classifies = type(fused).__name__.endswith(CLASSIFIERS)
        taken = inspect.signature(fused.forward).parameters
        self._options: dict[str, Any] = {"use_cache": False} if "use_cache" in taken else {}
        if self.input_names[0] == "pixel_values":
            self._options |= resizing(fused, int(traits.inputs[0].axes[-1]))
        self._pad_token = int(getattr(fused.config, "pad_token_id", None) or 0)
        self._gives_positions = "position_ids" in taken and _is_rotary(fused)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run with the library's fused attention.

        Args:
            inputs: In the order of input_names.

        Returns:
            "last_hidden_state" float [B, N, D], of a classifier that of the network below it; "embedding" float
            [B, D] (see _choose_pooling) where there is one; with a classifier "logits" float [B, C]; of an
            encoder-decoder also "encoder_last_hidden_state".
        """
        return self._outputs(*self._call(self.fused, inputs), inputs)

    def explain(self, *inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run with attention written out; return also each layer's weights, float [B, H, Q, K]."""
        answer, base = self._call(self.explained, inputs, output_attentions=True)
        return self._outputs(answer, base, inputs), _attentions(answer)

    def _call(self, network: Any, inputs: tuple[Tensor, ...], **options: Any) -> tuple[Any, Any]:
        """Return the answer, and that of the network below a classifier."""
        given = self._complete(dict(zip(self.input_names, inputs, strict=True)))
        if not self.classifies:
            answer = network(**given, **self._options, **options)
            return answer, answer
        answers = list[Any]()
        handle = network.base_model.register_forward_hook(lambda module, taken, made: answers.append(made))
        try:
            return network(**given, **self._options, **options), answers[0]
        finally:
            handle.remove()

    def _complete(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add what the library would make itself, but in a form that does not suit."""
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if self._gives_positions and ids is not None:
            # Otherwise the library makes them once for the batch, which ONNX's RotaryEmbedding does not take.
            given["position_ids"] = torch.arange(ids.shape[1])[None].expand(ids.shape)
        if self.classifies and ids is not None and mask is not None:
            # A decoder's classifier looks for the last token that is no padding by its id.
            given["input_ids"] = ids.masked_fill(mask == 0, self._pad_token)
        return given

    def _outputs(self, answer: Any, base: Any, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        hidden = base.last_hidden_state
        outputs = {"last_hidden_state": hidden}
        if (encoded := getattr(answer, "encoder_last_hidden_state", None)) is not None:
            outputs["encoder_last_hidden_state"] = encoded
        if self._pool is not None:
            given = dict(zip(self.input_names, inputs, strict=True))
            if (vector := self._pool(base, hidden, given.get("attention_mask"))) is not None:
                outputs["embedding"] = vector
        if self.classifies:
            outputs["logits"] = answer.logits
        return outputs


def load_transformers(folder: Path, part: str | None = None, image_size: int | None = None) -> Loaded:
    """Read a folder in the library's layout.

    Args:
        folder: With config.json and safetensors.
        part: Of a network that has several: "vision" or "text", or the "encoder" of an encoder-decoder.
        image_size: Edge of the images in pixels, where the network takes another than its own.

    Raises:
        CheckpointError: It cannot be read, lacks weights, needs a part to be named, or tells no attention.
    """
    with _quietly():
        checkpoint = read_checkpoint(folder, part)
        try:
            return _assemble(checkpoint, folder, image_size, whole=part != "encoder")
        except CheckpointError:
            raise
        except Exception as error:  # the library raises whatever its parts raise
            family, main = checkpoint.config.model_type, main_input(checkpoint.fused)
            raise CheckpointError(f"{folder}: {family} does not run on {main} alone: {first_line(error)}") from error


def _assemble(checkpoint: Checkpoint, folder: Path, image_size: int | None, *, whole: bool) -> Loaded:
    """Put the network together, run it once, and complete its traits by what it gives."""
    fused, config = checkpoint.fused, checkpoint.config
    traits = describe_inputs(fused, config, image_size, whole=whole)
    patches = find_grid(fused, traits.inputs[0].axes) if main_input(fused) == "pixel_values" else None
    takes_pooling = traits.is_text and not config.model_type.endswith(_TEXT_TOWER)
    pooling = read_pooling(folder) if takes_pooling else Pooling("cls", normalize=False)
    is_sound = main_input(fused) not in ("input_ids", "pixel_values")
    has_vector = not is_sound and not (config.is_encoder_decoder and whole)
    pool = _choose_pooling(checkpoint, traits, pooling, patches) if has_vector else None
    network = TransformersNetwork(fused, checkpoint.explained, traits, pool).eval()
    sizes = traits.fit(dict.fromkeys(traits.axes, _SIZE))
    feed = [torch.from_numpy(array) for array in traits.example(_ROWS, sizes).values()]
    with torch.inference_mode():
        outputs, attentions = network.explain(*feed)
    _check_attentions(attentions, config.model_type)
    embedding = None
    if "embedding" in outputs:
        dim = outputs["embedding"].shape[1]
        embedding = EmbeddingContract(output="embedding", dim=dim, normalized=pooling.normalize)
    return Loaded(network, dataclasses.replace(traits, embedding=embedding, patches=patches), config)


def _is_rotary(network: nn.Module) -> bool:
    return any("Rotary" in type(module).__name__ for module in network.modules())


def _choose_pooling(checkpoint: Checkpoint, traits: Traits, pooling: Pooling, patches: PatchContract | None) -> Pool:
    """Decide how the vector is made.

    Returns:
        Of a text: as the sentence-transformers files of the folder say, else the normalised mean over its tokens. Of an
        image, and of a text tower trained beside an image tower: what is compared with the other tower's vector, else
        what the network's own pooler gives; without a pooler the class token, and without that the mean of the patches.
        It gives None where states are no sequence.
    """
    config = checkpoint.config
    if traits.is_text and not config.model_type.endswith(_TEXT_TOWER):
        return lambda answer, hidden, mask: _pool_text(hidden, mask, pooling)
    has_cls = traits.is_text or (patches is not None and patches.prefix_tokens > 0)
    has_pooler = checkpoint.has_pooler

    def pool(answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        names = (*_PROJECTED, "pooler_output") if has_pooler else _PROJECTED
        found: Iterator[Tensor | None] = (getattr(answer, name, None) for name in names)
        vector = next((one for one in found if one is not None), None)
        if vector is not None and vector.ndim == 2:
            return vector
        if hidden.ndim != 3:
            return None
        return hidden[:, 0] if has_cls else hidden.mean(dim=1)

    return pool


def _pool_text(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    ones = torch.ones_like(hidden[:, :, 0]) if mask is None else mask
    vector = hidden[:, 0] if pooling.mode == "cls" else mean_over_tokens(hidden, ones)
    return nn.functional.normalize(vector, dim=-1) if pooling.normalize else vector


def _attentions(answer: Any) -> list[Tensor]:
    """Every layer's weights in the order of the graph: the encoder's, then by turns the decoder's own and cross."""
    cross = getattr(answer, "cross_attentions", None)
    if cross:
        pairs = zip(answer.decoder_attentions, cross, strict=True)
        return [*answer.encoder_attentions, *(one for pair in pairs for one in pair)]
    return list(getattr(answer, "attentions", None) or ())


def _check_attentions(attentions: list[Tensor], family: str) -> None:
    """Refuse what could not be compared, or means something else to whoever asks."""
    if not attentions or any(one is None for one in attentions):
        raise CheckpointError(f"{family}: transformers returns no attention weights of it, with which to compare")
    for layer, one in enumerate(attentions):
        if one.ndim != 4 or one.shape[0] != _ROWS:
            shape = list(one.shape)
            raise CheckpointError(
                f"{family}: layer {layer} has attention {shape} for {_ROWS} rows; expected [rows, heads, queries, keys]"
            )


@contextmanager
def _quietly() -> Iterator[None]:
    """Let the library neither log nor draw bars, but only meanwhile."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()  # type: ignore[no-untyped-call]
