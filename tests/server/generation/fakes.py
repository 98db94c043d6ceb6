"""A decoder in numpy whose next tokens follow from the source and from everything that a row has read."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel

from artifact.detokenizing import TextWriter
from artifact.dtypes import Array
from artifact.generation import GenerationContract
from server.engine.cost import CostModel
from server.engine.decoder import BoundStep, Decoder
from server.repository.loading import LoadedModel
from tests.server.fakes import CONTRACT, make_model

VOCABULARY = 12
PAD, START, END = 0, 1, 2
GENERATION = GenerationContract(
    num_layers=1,
    num_heads=1,
    head_dim=1,
    scale=1.0,
    vocab_size=VOCABULARY,
    starts={"one": (START,), "three": (START, 5, 6)},
    default_start="one",
    end_tokens=(END,),
    pad_token=PAD,
    max_tokens=20,
    tokenizer_file="tokenizer.json",
)


def logits_after(source: Sequence[float], tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return the logits [V] behind some tokens, another for each source and each history."""
    seed = [*(round(number * 100) for number in source), 10_000, *tokens]
    logits = np.random.default_rng(seed).normal(size=VOCABULARY) * 2
    logits[END] += 0.15 * len(tokens)  # so that it ends
    return logits.astype(np.float32)


def bias_of(layer: int, length: int, distances: NDArray[np.int64]) -> NDArray[np.float64]:
    """What FakeDecoder says of keys so far away, in a row that has read so many tokens before."""
    return (layer + 1) * np.sin(distances + length)


def source_of(numbers: Sequence[float]) -> list[Array]:
    """Return keys and values of a source, float32 [1, 1, S, 1] each, as the encoder would give them."""
    keys = np.array(numbers, np.float32).reshape(1, 1, -1, 1)
    return [keys, keys]


class FakeDecoder:
    """Stands in for the decoder's graph; `batches` has how many rows each step had."""

    def __init__(self, generation: GenerationContract = GENERATION) -> None:
        self.generation = generation
        self.cost = CostModel(token_seconds=1e-4)
        self.can_use_all_threads = False
        self.batches: list[int] = []

    @classmethod
    def make(cls) -> Decoder:
        """Make one that the type checker takes for the real one."""
        return cast(Decoder, cls())

    def hold(self, given: Mapping[str, Array], device: int = 0) -> None:
        """Hold nothing: it reads the host's memory."""

    def bind(
        self,
        given: Mapping[str, Array],
        made: Mapping[str, Array],
        *,
        all_threads: bool = False,
        device: int = 0,
        held: None = None,
    ) -> BoundStep:
        """Prepare a step."""
        return cast(BoundStep, _Step(self, given, made))


class _Step:
    def __init__(self, decoder: FakeDecoder, given: Mapping[str, Array], made: Mapping[str, Array]) -> None:
        self._decoder, self._given, self._made = decoder, given, made

    def run(self) -> None:
        given, made = self._given, self._made
        self._decoder.batches.append(len(given["input_ids"]))
        for row, (length, source_length) in enumerate(zip(given["lengths"], given["source_lengths"], strict=True)):
            for name in ("next_key.0", "next_value.0"):
                made[name][row, 0, length, 0] = given["input_ids"][row, 0]
            tokens = [int(token) for token in made["next_key.0"][row, 0, : length + 1, 0]]
            source = given["cross_value.0"][row, 0, :source_length, 0]
            made["logits"][row] = logits_after(source.tolist(), tokens)
            for name in made:
                if "query" in name:
                    made[name][row] = 0.5
                if "bias" in name:  # of keys by their distance, in each layer so many times, and more in a longer row
                    distances = length - np.arange(made[name].shape[2])
                    made[name][row] = bias_of(int(name[-1]), length, distances)


def letters() -> TextWriter:
    """Return what spells token 3 as "c", 4 as "d" and so on."""
    vocabulary = {"<pad>": PAD, "<s>": START, "</s>": END, **{one: place for place, one in enumerate("cdefghijk", 3)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, "<pad>"))
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.decoder = Fuse()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(f"{folder}/tokenizer.json")
        return TextWriter(Path(folder) / "tokenizer.json")


def make_writer(**changes: object) -> LoadedModel:
    """A model of 3 layers by 4 heads that writes up to 12 tokens, without graphs; other fields as given."""
    fields: dict[str, object] = {"num_layers": 3, "num_heads": 4, "max_tokens": 12}
    generation = GENERATION.model_copy(update=fields | changes)
    model = make_model(CONTRACT.model_copy(update={"generation": generation}))
    return dataclasses.replace(model, writer=letters())
