"""Holds networks whose computation changes with the batch's length to the lengths at which it stays the same."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from export.traits import Traits
from export.transformers_checkpoint import Checkpoint

_FULL, _SPARSE = "original_full", "block_sparse"
_STILL = "default"  # rotary frequencies as they were made
_ROTARY = ("dynamic", "longrope")  # kinds whose frequencies follow the longest row of a batch


def hold_length(checkpoint: Checkpoint, traits: Traits) -> tuple[Traits, str]:
    """Keep a network from changing what it computes with the longest row of a batch.

    Beyond some length the library makes attention sparse (BigBird) or other rotary frequencies (dynamic NTK, LongRoPE)
    for the whole batch, so that a row's answer would depend on who shares its batch. Up to that length neither
    happens: the network is made to do always what it does there. The eager one is left to the library's own ways
    where it gives its attention then, so that verification compares with these.

    Args:
        checkpoint: Its networks are changed.
        traits: Of the inputs.

    Returns:
        The traits with that length as the longest, and a sentence on it for people; empty where nothing changes.
    """
    limits = dict((*_hold_sparse(checkpoint), *_hold_rotary(checkpoint.fused)))
    limits = {what: length for what, length in limits.items() if length < traits.longest}
    if not limits:
        return traits, ""
    what, longest = min(limits.items(), key=lambda item: item[1])
    return replace(traits, longest=longest), f"at most {longest} tokens: with more in any row of a batch, {what}"


def _hold_sparse(checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """BigBird attends fully to what is no longer than all of its blocks; its switch must be thrown before it runs."""
    if getattr(checkpoint.config, "attention_type", None) != _SPARSE:
        return
    for network in (checkpoint.fused, checkpoint.explained):
        for module in list(network.modules()):
            if hasattr(module, "set_attention_type"):
                module.set_attention_type(_FULL)
    blocks = 5 + 2 * checkpoint.config.num_random_blocks  # global, sliding and random ones, as the library counts them
    yield "the library makes attention sparse (block_sparse)", blocks * checkpoint.config.block_size


def _hold_rotary(network: Any) -> Iterator[tuple[str, int]]:
    for module in network.modules():
        kinds = getattr(module, "rope_type", None)
        by_layer = kinds if isinstance(kinds, dict) else {None: kinds}
        moving = {layer: kind for layer, kind in by_layer.items() if kind in _ROTARY}
        for layer, kind in moving.items():
            yield f"its rotary frequencies change for all ({kind})", _rotary_length(module, layer, kind)
        if moving:
            still = {layer: _STILL if layer in moving else kind for layer, kind in by_layer.items()}
            module.rope_type = still if isinstance(kinds, dict) else _STILL


def _rotary_length(module: Any, layer: str | None, kind: str) -> int:
    """Most tokens for which frequencies are those that were made with the network."""
    told = module.config.rope_parameters if layer is None else module.config.rope_parameters[layer]
    return int(
        told["original_max_position_embeddings"] if kind == "longrope" else module.config.max_position_embeddings
    )
