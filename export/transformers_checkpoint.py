"""Reads a transformers folder into one network with two kinds of attention.

Nothing is downloaded, no code of the folder's own is run, and weights are safetensors alone.
"""

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from model.checkpoint import CheckpointError, read_json
from server.errors import first_line

_FUSED, _WRITTEN_OUT = "sdpa", "eager"
_HEADS = {
    "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "ForImageClassification": transformers.AutoModelForImageClassification,
}
CLASSIFIERS = tuple(_HEADS)
_MASKED_WORDS = "ForMaskedLM"
_BELOW = ("DPRContextEncoder", "DPRQuestionEncoder")  # of these, the network below gives states as well as the vector
_MANY = 3  # names in a message


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A folder's network.

    Attributes:
        fused: In evaluation mode, with fused attention; eager where the family has none.
        explained: The same weights, in the same memory, with eager attention.
        config: Of the part that was asked for.
        missing: Names of weights that the folder lacks and that nothing needs: a pooler's.
    """

    fused: Any
    explained: Any
    config: Any
    missing: frozenset[str]

    @property
    def main_input(self) -> str:
        """Name of what it reads."""
        return main_input(self.fused)

    @property
    def has_pooler(self) -> bool:
        """Whether what pools was trained."""
        return not any("pooler" in name for name in self.missing)


def read_checkpoint(folder: Path, part: str | None, *, masked_words: bool = False) -> Checkpoint:
    """Read a folder.

    Args:
        folder: With config.json and safetensors.
        part: "vision" or "text" of a network that has both, "encoder" of an encoder-decoder; None for the whole.
        masked_words: Whether its head for masked words is wanted.

    Raises:
        CheckpointError: It cannot be read, lacks weights, needs a part to be named, or has no such part.
    """
    whole_config = _read_config(folder)
    config = _config_of_part(whole_config, part)
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: has no weights; expected model.safetensors, or its parts and their index")
    faults = list[str]()
    ways = [(_masked_words(config, folder), config)] if masked_words else _ways(whole_config, config, part)
    for factory, given in ways:
        whole, found = _load(factory, folder, given)
        missing = _missing(whole, _take_part(whole, part), found)
        needed = [name for name in missing if "pooler" not in name]
        if not needed and not found["mismatched_keys"]:
            eager = _make_eager(whole, factory, folder)
            return Checkpoint(_take_part(whole, part), _take_part(eager, part), config, frozenset(missing))
        faults = faults or _name_faults(needed, found["mismatched_keys"])
    raise CheckpointError(f"{folder}: {config.model_type} {' and '.join(faults) or 'has no class of its own'}")


def read_writer(folder: Path, factory: Any) -> tuple[Any, Any]:
    """Read an encoder-decoder with its head for words, fused and eager, as Checkpoint has them.

    Raises:
        CheckpointError: It cannot be read, or lacks weights.
    """
    config = _read_config(folder)
    network, found = _load(factory, folder, config)
    if faults := _name_faults(sorted(_missing(network, network, found)), found["mismatched_keys"]):
        raise CheckpointError(f"{folder}: {config.model_type} {' and '.join(faults)}")
    return network, _make_eager(network, factory, folder)


def _read_config(folder: Path) -> Any:
    content = read_json(folder / "config.json")
    if "auto_map" in content and content.get("model_type") not in CONFIG_MAPPING:
        family = content.get("model_type")
        raise CheckpointError(
            f"{folder}: {family} brings its own code (auto_map), which is never run; expected a family of transformers"
        )
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises whatever its parts raise
        raise CheckpointError(f"{folder / 'config.json'}: {first_line(error)}") from error


def _config_of_part(config: Any, part: str | None) -> Any:
    family, towers = config.model_type, [name for name in ("vision", "text") if hasattr(config, f"{name}_config")]
    parts = [*towers, "encoder"] if config.is_encoder_decoder else towers
    if part and part not in parts:
        raise CheckpointError(f"--part: {part!r}; {family} has {' and '.join(parts) or 'one part only'}")
    if part in ("vision", "text"):
        return getattr(config, f"{part}_config")
    if towers and not config.is_encoder_decoder and not _classifier_of(config):
        raise CheckpointError(f"--part: missing; {family} has several networks, expected {' or '.join(towers)}")
    return config


def _classifier_of(config: Any) -> Any:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    return next((factory for ending, factory in _HEADS.items() if architecture.endswith(ending)), None)


def _masked_words(config: Any, folder: Path) -> Any:
    """The class with a head for masked words."""
    known: Any = transformers.AutoModelForMaskedLM._model_mapping
    if type(config) not in known or not known[type(config)].__name__.endswith(_MASKED_WORDS):
        raise CheckpointError(f"{folder}: {config.model_type} has no head for masked words, which sparse vectors need")
    return transformers.AutoModelForMaskedLM


def tells_masked_words(network: Any) -> bool:
    """Whether it scores words for every position."""
    return type(network).__name__.endswith(_MASKED_WORDS)


def _lone_encoder(config: Any) -> Any:
    """The class of an encoder that was saved without its decoder, or as one of two: T5EncoderModel, DPR's encoders."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    is_encoder = architecture.endswith(("EncoderModel", *_BELOW))
    return getattr(transformers, architecture, None) if is_encoder else None


def _ways(whole_config: Any, config: Any, part: str | None) -> Iterator[tuple[Any, Any]]:
    """Yield classes to try in turn, each with the configuration to give it; a part comes by itself or in the whole."""
    if part in (None, "encoder") and (classifier := _classifier_of(whole_config)):
        yield classifier, config
        return
    if part is None and (encoder := _lone_encoder(config)):
        yield encoder, config
    name = type(config).__name__.removesuffix("Config")
    projecting, plain = (getattr(transformers, f"{name}{end}", None) for end in ("ModelWithProjection", "Model"))
    if projecting:
        yield projecting, config
    if type(config) in transformers.AutoModel._model_mapping:
        yield transformers.AutoModel, config
    elif plain:
        yield plain, config
    if config is not whole_config:
        yield transformers.AutoModel, whole_config


def _load(factory: Any, folder: Path, config: Any, attention: str = _FUSED) -> tuple[Any, dict[str, Any]]:
    """Load with one kind of attention; returns the network and what the library found missing or of another shape."""
    try:
        network, found = factory.from_pretrained(
            folder,
            config=copy.deepcopy(config),
            dtype=torch.float32,
            attn_implementation=attention,
            experts_implementation="batched_mm",  # the others cannot be traced
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # the library raises whatever its parts raise
        if attention == _FUSED and isinstance(error, ValueError) and "does not support an attention" in str(error):
            return _load(factory, folder, config, _WRITTEN_OUT)
        raise CheckpointError(f"{folder}: transformers cannot load it: {first_line(error)}") from error
    return network.eval(), found


def _take_part(whole: Any, part: str | None) -> Any:
    """Find a part by its configuration in a network that has several."""
    if part == "encoder":
        return whole.get_encoder()
    wanted = getattr(whole.config, f"{part}_config", None)
    if wanted is None:
        return whole.base_model if type(whole).__name__ in _BELOW else whole
    modules = (one for one in whole.modules() if isinstance(one, transformers.PreTrainedModel))
    return next((one for one in modules if one.config is wanted), whole)


def _missing(whole: Any, network: Any, found: dict[str, Any]) -> set[str]:
    """Names of weights of the part that the folder lacks."""
    own = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    tensors = whole.state_dict(keep_vars=True)
    return {name for name in found["missing_keys"] if name not in tensors or id(tensors[name]) in own}


def _name_faults(missing: list[str], mismatched: Any) -> list[str]:
    faults = []
    if missing:
        rest = " and so on" if len(missing) > _MANY else ""
        faults.append(f"lacks {len(missing)} weights: {', '.join(sorted(missing)[:_MANY])}{rest}")
    if mismatched:
        name, stored, wanted = min(mismatched)
        faults.append(
            f"has {len(mismatched)} weights of another shape: {name} is {list(stored)}, expected {list(wanted)}"
        )
    return faults


def _make_eager(network: Any, factory: Any, folder: Path) -> Any:
    """Make the network with eager attention, on the same weights in the same memory."""
    if network.config._attn_implementation == _WRITTEN_OUT:
        return network
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    explained = copy.deepcopy(network, shared)
    explained.set_attn_implementation(_WRITTEN_OUT)
    has_classes_by_kind = any("Sdpa" in type(module).__name__ for module in explained.modules())
    if has_classes_by_kind or explained.config._attn_implementation != _WRITTEN_OUT:
        explained, _ = _load(factory, folder, network.config, _WRITTEN_OUT)
        explained.load_state_dict(network.state_dict(), assign=True)
    return explained


def main_input(network: Any) -> str:
    """Name of what a network reads; some classes name one that they do not take."""
    taken = list(inspect.signature(network.forward).parameters)
    return str(network.main_input_name) if network.main_input_name in taken else taken[0]
