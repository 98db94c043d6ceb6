"""What the steps of an export need to know of a network or a graph, whoever wrote it: its inputs and their limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, EmbeddingContract, PatchContract, Similarity, WindowContract
from artifact.dtypes import Array, DType
from model.checkpoint import CheckpointError, Network
from model.text import TextNetwork

Feed = dict[str, Array]
TOKEN_TYPES = "token_type_ids"  # noqa: S105 -- no secret
TEXT_AXES = ((BATCH_AXIS, SEQUENCE_AXIS), (1, SEQUENCE_AXIS))  # of what is made of a text


@dataclass(frozen=True)
class InputSpec:
    """One input of a network.

    Attributes:
        name: Of the graph's input.
        axes: A size where fixed, a name where symbolic; the batch first.
        dtype: Of its elements.
        bound: Integers are at least 0 and less than that; 0 for no bound.
        mask: Whether it says with 1 which positions of the sequence are real.
        token_types: Whether it says of which of two texts each token is.
    """

    name: str
    axes: tuple[int | str, ...]
    dtype: DType = "float32"
    bound: int = 0
    mask: bool = False
    token_types: bool = False


@dataclass(frozen=True)
class Traits:
    """What an export has to know besides the network itself.

    Attributes:
        inputs: In the order in which the network takes them.
        longest: Most positions of the sequence axis.
        embedding: Which output is the vector; None where there is none.
        patches: How positions lie on an image; None for others.
        other_axes: Most positions of symbolic axes besides batch and sequence, by name.
        units: How many positions of a symbolic axis become one, by name: samples of sound that make a frame.
        windows: Of each layer's attention, in their order, None for one without; empty where no layer has any.
    """

    inputs: tuple[InputSpec, ...]
    longest: int = 64
    embedding: EmbeddingContract | None = None
    patches: PatchContract | None = None
    other_axes: Mapping[str, int] | None = None
    units: Mapping[str, int] | None = None
    windows: tuple[WindowContract | None, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether it takes sequences, in batches or one by one, and a mask of their real positions."""
        return any(spec.mask and spec.axes in TEXT_AXES for spec in self.inputs)

    @property
    def is_full_length(self) -> bool:
        """Whether it takes token ids alone, always as many as its longest text has: SigLIP's texts are filled up."""
        return [(spec.name, spec.axes) for spec in self.inputs] == [("input_ids", (BATCH_AXIS, self.longest))]

    @property
    def is_batched(self) -> bool:
        """Whether it takes any number of rows."""
        return all(spec.axes[0] == BATCH_AXIS for spec in self.inputs)

    def limit(self, axis: str) -> int:
        """Most positions of a symbolic axis."""
        return self.longest if axis == SEQUENCE_AXIS else (self.other_axes or {}).get(axis, self.longest)

    def unit(self, axis: str) -> int:
        """Positions of a symbolic axis that become one."""
        return (self.units or {}).get(axis, 1)

    def fit(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Make possible sizes of symbolic axes: so many units, and no more than the most."""
        return {name: min(size * self.unit(name), self.limit(name)) for name, size in sizes.items()}

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the symbolic axes besides the batch."""
        names = (axis for spec in self.inputs for axis in spec.axes if isinstance(axis, str))
        return tuple(dict.fromkeys(name for name in names if name != BATCH_AXIS))

    def example(self, batch: int, sizes: Mapping[str, int], seed: int = 0) -> Feed:
        """Make random inputs: normal numbers, integers within their bounds, ones for masks.

        Args:
            batch: Rows.
            sizes: Of the symbolic axes.
            seed: Of the random numbers.
        """
        random = np.random.default_rng(seed)
        return {spec.name: _example(spec, random, {BATCH_AXIS: batch, **sizes}) for spec in self.inputs}


def pad(feed: Feed, traits: Traits, lengths: Sequence[int]) -> Feed:
    """Make everything behind each row's length padding: zeros."""
    padded = {name: array.copy() for name, array in feed.items()}
    for spec in traits.inputs:
        if SEQUENCE_AXIS in spec.axes:
            for row, length in enumerate(lengths):
                padded[spec.name][row, length:] = 0
    return padded


def own_traits(network: Network, image_size: int | None, similarity: Similarity | None = None) -> Traits:
    """Describe a network of model/.

    Args:
        network: Of a text or an image.
        image_size: Edge of images in pixels; None for the network's own.
        similarity: How the vectors of texts are compared.

    Raises:
        CheckpointError: Patches do not fill images of that size.
    """
    config = network.config
    if isinstance(network, TextNetwork):
        axes = (BATCH_AXIS, SEQUENCE_AXIS)
        inputs: tuple[InputSpec, ...] = (
            InputSpec("input_ids", axes, "int64", bound=network.config.vocab_size),
            InputSpec("attention_mask", axes, "int64", bound=2, mask=True),
        )
        if network.config.token_types:
            inputs += (type_input(axes, network.config.num_segments),)
        embedding = EmbeddingContract(
            output="embedding",
            dim=config.encoder.embed_dim,
            normalized=network.config.normalize,
            similarity=similarity,
        )
        return Traits(inputs, config.encoder.max_positions, embedding)
    size = image_size or network.config.image_size
    if size % network.config.patch_size:
        raise CheckpointError(f"image size: {size}; expected a multiple of the patch size, {network.config.patch_size}")
    pixels = InputSpec("pixel_values", (BATCH_AXIS, network.config.num_channels, size, size))
    grid = size // network.config.patch_size
    patches = PatchContract(prefix_tokens=1, rows=grid, cols=grid, patch_size=network.config.patch_size)
    embedding = EmbeddingContract(output="embedding", dim=config.encoder.embed_dim, normalized=False)
    return Traits((pixels,), embedding=embedding, patches=patches)


def type_input(axes: tuple[int | str, ...], types: int) -> InputSpec:
    """Describe the input that tells so many token types apart."""
    return InputSpec(TOKEN_TYPES, axes, "int64", bound=types, token_types=True)


def find_patches(positions: int, edge: int, patch_size: Any = None) -> PatchContract | None:
    """Tell from the number of positions how patches lie on a square image; None where they are no grid.

    Args:
        positions: Of the attention's keys, tokens that are no patches included.
        edge: Of the image, in pixels.
        patch_size: In pixels, where it is known.
    """
    grids = [edge // patch_size] if isinstance(patch_size, int) else list(range(edge, 0, -1))
    for grid in grids:
        if edge % grid == 0 and 0 <= positions - grid * grid <= 8:
            return PatchContract(prefix_tokens=positions - grid * grid, rows=grid, cols=grid, patch_size=edge // grid)
    return None


def _example(spec: InputSpec, random: np.random.Generator, sizes: Mapping[str, int]) -> Array:
    shape = [axis if isinstance(axis, int) else sizes[axis] for axis in spec.axes]
    dtype = np.dtype(spec.dtype)
    if spec.mask:
        return np.ones(shape, dtype=dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(spec.bound or 2, size=shape).astype(dtype)
