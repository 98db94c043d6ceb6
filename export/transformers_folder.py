"""Networks of the transformers library: any folder whose class can be exported.

The network is exported with its fused attention (sdpa) and compared with the same weights in its eager form,
which returns its attention. A family without a fused form is exported with eager attention.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from artifact.contract import EmbeddingContract, PatchContract
from export.hidden_states import PROJECTED
from export.sentence_transformers import SentenceFolder
from export.tokenizer_files import joins_pairs, pair_types
from export.traits import Traits
from export.transformers_checkpoint import CLASSIFIERS, Checkpoint, read_checkpoint, tells_masked_words
from export.transformers_lengths import hold_length
from export.transformers_masking import see_all_patches
from export.transformers_pooling import Pooling, choose_pooling
from export.transformers_projection import project_positions
from export.transformers_told_by_torch import AVERAGED, fuse_heads, told_by_torch
from export.transformers_traits import count_types, describe_inputs, find_grid, resizing
from export.transformers_windows import WindowedLayer, find_window_grid, find_windows, told_in_windows
from model.checkpoint import CheckpointError
from server.errors import first_line

_ROWS, _SIZE = 2, 8  # of the batch, and of symbolic axes, when it is tried
_OPTIONS = {"use_cache": False, "return_dict": True}
_SCORING = ("squeezebert",)  # give scores for attention, of which the softmax is the weights
_ALIKE = 1e-3  # of the largest magnitude, between both forms of attention


@dataclass(frozen=True)
class Loaded:
    """A network of the library as export needs it; `pairs` as TextContract has them."""

    network: "TransformersNetwork"
    traits: Traits
    config: Any
    pairs: bool
    held: str = ""
    """What it is held to, see hold_length and see_all_patches."""


class TransformersNetwork(nn.Module):
    """One network twice, with the same weights: fused, and eager to say what it attended to."""

    def __init__(self, fused: Any, explained: Any, traits: Traits, pooling: Pooling | None) -> None:
        """Put both together.

        Args:
            fused: In evaluation mode.
            explained: The same with eager attention.
            traits: Of its inputs.
            pooling: How the vector is made; None for none.
        """
        super().__init__()
        self.fused, self.explained, self.pooling = fused, explained, pooling
        self.projects = False  # whether positions are compared with another tower's
        self.windows: tuple[WindowedLayer, ...] = ()  # in which layers attend
        if fused is not explained:
            fuse_heads(fused)
        self.input_names = tuple(spec.name for spec in traits.inputs)
        self.classifies = type(fused).__name__.endswith(CLASSIFIERS)
        self._has_head = self.classifies or tells_masked_words(fused)
        taken = inspect.signature(fused.forward).parameters
        self._options: dict[str, Any] = {name: value for name, value in _OPTIONS.items() if name in taken}
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
            [B, D] (see choose_pooling) where there is one; with a classifier "logits" float [B, C]; of an
            encoder-decoder also "encoder_last_hidden_state".
        """
        return self._outputs(*self._call(self.fused, inputs), inputs)

    def explain(self, *inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run with eager attention; return also each layer's weights, float [B, H, Q, K]; K in windows those of one."""
        with told_by_torch() as told, told_in_windows(self.windows) as windowed:
            answer, base = self._call(self.explained, inputs, output_attentions=True)
        family, attentions = self.explained.config.model_type, _attentions(answer)
        if family in _SCORING:
            attentions = [scores.softmax(dim=-1) for scores in attentions]
        if self.windows:
            attentions = windowed
        elif family in AVERAGED:
            attentions = told
        elif not self.classifies:  # of the states themselves: the head is left to the vector, which is not asked for
            attentions += told
        return self._outputs(answer, base, inputs), attentions

    def show_states(self, *inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run as forward; return also the library's output_hidden_states, of one network without a decoder.

        Of a tower there is "hidden_states.projected" among the outputs, see project_positions.
        """
        answer, base = self._call(self.fused, inputs, output_hidden_states=True)
        outputs = self._outputs(answer, base, inputs)
        if self.projects and (projected := project_positions(self.fused, base.last_hidden_state)) is not None:
            outputs[PROJECTED] = projected
        return outputs, list(getattr(answer, "hidden_states", None) or ())

    def _call(self, network: Any, inputs: tuple[Tensor, ...], **options: Any) -> tuple[Any, Any]:
        """Return the answer, and that of the network below a classifier or a head for masked words."""
        given = self._complete(dict(zip(self.input_names, inputs, strict=True)))
        if not self._has_head:
            answer = network(**given, **self._options, **options)
            return answer, answer
        if network.base_model is network:  # what is below is not told apart
            answer = network(**given, **self._options, **{**options, "output_hidden_states": True})
            return answer, BaseModelOutput(answer.hidden_states[-1])
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
        if self.pooling is not None:
            given = dict(zip(self.input_names, inputs, strict=True))
            told = base if self.classifies else answer
            if (vector := self.pooling(told, hidden, given.get("attention_mask"))) is not None:
                outputs[self.pooling.output] = vector
        if self.classifies:
            outputs["logits"] = answer.logits
        return outputs


def load_transformers(sentence: SentenceFolder, part: str | None = None, image_size: int | None = None) -> Loaded:
    """Read a folder in the library's layout.

    Args:
        sentence: What its folder, with config.json and safetensors, says of vectors.
        part: Of a network that has several: "vision" or "text", or the "encoder" of an encoder-decoder.
        image_size: Edge of the images in pixels, where the network takes another than its own.

    Raises:
        CheckpointError: It cannot be read, lacks weights, needs a part to be named, or tells no attention.
    """
    with quietly():
        checkpoint = read_checkpoint(sentence.network, part, masked_words=sentence.splade is not None)
        try:
            return _assemble(checkpoint, sentence, image_size, whole=part != "encoder")
        except CheckpointError:
            raise
        except Exception as error:  # the library raises whatever its parts raise
            family, main = checkpoint.config.model_type, checkpoint.main_input
            raise CheckpointError(
                f"{sentence.network}: {family} does not run on {main} alone: {first_line(error)}"
            ) from error


def _assemble(checkpoint: Checkpoint, sentence: SentenceFolder, image_size: int | None, *, whole: bool) -> Loaded:
    """Put the network together, run it once, and complete its traits by what it gives."""
    fused, config = checkpoint.fused, checkpoint.config
    unmasked, types = see_all_patches(fused, checkpoint.explained), pair_types(sentence)
    described = describe_inputs(fused, config, image_size, whole=whole, pair_types=types)
    traits, held = hold_length(checkpoint, described)
    windows, patches = _find_places(checkpoint, traits)
    has_vector = checkpoint.main_input in ("input_ids", "pixel_values") and not (config.is_encoder_decoder and whole)
    pooling = choose_pooling(checkpoint, sentence, patches) if has_vector else None
    network = TransformersNetwork(fused, checkpoint.explained, traits, pooling).eval()
    network.windows = windows
    sizes = traits.fit(dict.fromkeys(traits.axes, _SIZE))
    feed = [torch.from_numpy(array) for array in traits.example(_ROWS, sizes).values()]
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(0)
        fused_outputs = network(*feed)
        torch.manual_seed(0)
        outputs, attentions = network.explain(*feed)
    _check_attentions(attentions, config.model_type)
    _check_alike(fused_outputs, outputs, config.model_type)
    embedding = None
    if pooling and "embedding" in outputs:
        dim = outputs["embedding"].shape[1]
        embedding = EmbeddingContract(
            output="embedding",
            dim=dim,
            normalized=pooling.normalized,
            similarity=sentence.similarity,
            sparse=sentence.splade is not None,
        )
    own_windows = tuple(layer.window for layer in windows)
    traits = dataclasses.replace(traits, embedding=embedding, patches=patches, windows=own_windows)
    return Loaded(network, traits, config, joins_pairs(types, count_types(fused, config)), held or unmasked)


def _find_places(checkpoint: Checkpoint, traits: Traits) -> tuple[tuple[WindowedLayer, ...], PatchContract | None]:
    """Find out how positions lie on an image: in windows of each layer, if it has any, and as patches."""
    if checkpoint.main_input != "pixel_values":
        return (), None
    axes = traits.inputs[0].axes
    windows = find_windows(checkpoint.explained, checkpoint.config.model_type, axes) if len(axes) == 4 else ()
    edge = int(axes[-1])
    return windows, find_window_grid(windows, edge) if windows else find_grid(checkpoint.fused, axes)


def _is_rotary(network: nn.Module) -> bool:
    return any("Rotary" in type(module).__name__ for module in network.modules())


def _attentions(answer: Any) -> list[Tensor]:
    """Every layer's weights in the order of the graph: the encoder's, then by turns the decoder's own and cross."""
    cross = getattr(answer, "cross_attentions", None)
    if cross:
        pairs = zip(answer.decoder_attentions, cross, strict=True)
        return [*answer.encoder_attentions, *(one for pair in pairs for one in pair)]
    return list(_flatten(getattr(answer, "attentions", None) or ()))


def _flatten(attentions: Iterable[Any]) -> Iterator[Any]:
    """Yield what may be grouped by stages (PVTv2)."""
    for one in attentions:
        if isinstance(one, tuple):
            yield from one
        else:
            yield one


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


def _check_alike(fused: dict[str, Tensor], eager: dict[str, Tensor], family: str) -> None:
    """Refuse what tells the weights of another computation than is exported (Falcon adds ALiBi twice when eager)."""
    for name, expected in eager.items():
        difference, scale = float((fused[name] - expected).abs().max()), float(expected.abs().max())
        if difference > _ALIKE * max(1, scale):
            raise CheckpointError(
                f"{family}: transformers itself computes another {name} with eager attention, which tells the weights, "
                f"than with its fused attention: they differ by {difference:.2g}"
            )


@contextmanager
def quietly() -> Iterator[None]:
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
