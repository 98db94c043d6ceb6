"""One version of a model on disk: checked against its contract, loaded, run once.

An artifact has a contract beside its graphs. A folder with a model.onnx and no contract is served, too: what it takes
and gives is read from the graph.
"""

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from artifact.contract import (
    CONTRACT_FILE,
    CONTRIBUTIONS_GRAPH,
    DECODER_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_DECODER_GRAPH,
    LOWERED_GRAPH,
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    Contract,
    read_contract,
)
from artifact.detokenizing import TextWriter
from artifact.errors import ArtifactError
from artifact.files import check_hashes, check_regular, hash_file
from artifact.late_interaction import LateReader
from artifact.text import TextReader
from artifact.towers import IMAGE_TOWER, TEXT_TOWER, TOWERS_FILE, TowersContract, join_contracts, read_towers
from server.engine.agreement import check_tokens
from server.engine.device import Device, Instances
from server.engine.engine import Engine
from server.engine.execution import DEFAULT_EXECUTION, Execution
from server.engine.external_data import ExternalData
from server.errors import StartError
from server.repository.bare_onnx import describe_graph
from server.repository.limits import Usage
from server.repository.settings import ModelSettings

# Name, size and time of change of every file.
Fingerprint = frozenset[tuple[str, int, int]]
# On GPUs: a capture of one load would wait for an engine that another one builds, and every request for the capture.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One version of a model, ready to serve.

    Attributes:
        contract: Of the artifact; of two towers what they have in common, see join_contracts.
        engine: Its graphs; of two towers, which have one each, that for images.
        reader: What tokenises; None where no texts are taken.
        writer: What makes text of tokens, of an encoder-decoder; None for others.
        usage: Of the model, all its versions together.
        towers: Of a model that is two; None for others.
        heads: What a protocol has understood of requests for it, by their bytes; freed with it.
    """

    contract: Contract
    engine: Engine
    reader: TextReader | None
    usage: Usage = field(default_factory=lambda: Usage(ModelSettings()))
    late_reader: LateReader | None = None
    writer: TextWriter | None = None
    towers: "Towers | None" = None
    heads: dict[Hashable, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """The name that callers give."""
        return self.contract.name

    @cached_property
    def version(self) -> str:
        """The version as callers give it."""
        return str(self.contract.version)

    @cached_property
    def is_batched(self) -> bool:
        """Whether rows of different requests may share a run."""
        return self.contract.batched

    @cached_property
    def array_positions(self) -> int:
        """Positions of a row of arrays that have no sequence axis."""
        return 1 if self.contract.text else self.contract.positions

    def of_inputs(self, names: Iterable[str | None]) -> "LoadedModel":
        """Return what reads inputs of these names: the model itself; of two towers one, in doubt that for texts.

        Whoever asks keeps the model meanwhile: it is freed with the last reference to it.
        """
        if self.towers is None:
            return self
        image = self.towers.image
        is_image = not {"image", "images", *(spec.name for spec in image.contract.inputs)}.isdisjoint(names)
        return image if is_image else self.towers.text


@dataclass(frozen=True, eq=False)
class Towers:
    """A model for texts and one for images, whose vectors are of one space."""

    contract: TowersContract
    text: LoadedModel
    image: LoadedModel


Load = Callable[[Path, Contract], LoadedModel]


def fingerprint(folder: Path) -> Fingerprint:
    """Tell one content of a folder from another without reading it.

    Raises:
        StartError: It changes meanwhile, or cannot be read.
    """
    try:
        found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise StartError(f"{folder}: cannot be read: {error.strerror}") from error
    return frozenset((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in found)


def load_model(
    folder: Path,
    devices: Sequence[Device],
    instances: Instances,
    usage: Usage,
    execution: Execution = DEFAULT_EXECUTION,
) -> LoadedModel:
    """Check an artifact's contract and hashes, load its graphs and run each once.

    Args:
        folder: The version's.
        devices: Where it runs.
        instances: How runs of a device share the CPUs.
        usage: Of the model, with its settings.
        execution: What the server's flags say of runs without attention.

    Raises:
        StartError: Says what is wrong with which file.
    """
    load = partial(_load_artifact, devices=devices, instances=instances, usage=usage, execution=execution)
    try:
        with nullcontext() if devices[0].gpu is None else _ONE_AT_A_TIME:
            return _load(folder, usage, load)
    except ArtifactError as error:
        raise StartError(str(error)) from error


def _load(folder: Path, usage: Usage, load: Load) -> LoadedModel:
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            check_regular(path)
    if (folder / TOWERS_FILE).exists():
        return _load_towers(folder, usage, load)
    return load(folder, _read_contract(folder))


def _load_towers(folder: Path, usage: Usage, load: Load) -> LoadedModel:
    towers = read_towers(folder / TOWERS_FILE)
    for name, expected in towers.files.items():
        if (found := hash_file(folder / name)) != expected:
            raise StartError(f"{folder / name}: sha256 {found}; {TOWERS_FILE} says {expected}: changed or damaged")
    places = (folder / TEXT_TOWER, folder / IMAGE_TOWER)
    for place in places:
        if place.is_symlink():  # behind which nobody looks for changes, or for what is no file
            raise StartError(f"{place}: is a link; expected a folder")
    text, image = (read_contract(place / CONTRACT_FILE) for place in places)
    contract = join_contracts(towers, text, image)
    reading, seeing = (load(place, one) for place, one in zip(places, (text, image), strict=True))
    return LoadedModel(contract, seeing.engine, reading.reader, usage, towers=Towers(towers, reading, seeing))


def _load_artifact(
    folder: Path,
    contract: Contract,
    devices: Sequence[Device],
    instances: Instances,
    usage: Usage,
    execution: Execution,
) -> LoadedModel:
    check_hashes(folder, contract)
    if (folder / CONTRACT_FILE).exists():
        _check_listed(folder, contract)
    text = contract.text
    reader = TextReader(folder / text.tokenizer_file, text.max_tokens, text.pad_token) if text else None
    if reader:
        largest_type = reader.largest_type if text and text.pairs else 0
        check_tokens(folder, contract, reader.largest_id, largest_type)
    form, wanted = usage.settings.attention_form, usage.settings.execution_beside(execution)
    engine = Engine(folder, contract, devices, instances, form, wanted)
    engine.warm_up()
    late = LateReader(folder / text.tokenizer_file, contract.late) if text and contract.late else None
    writer = TextWriter(folder / contract.generation.tokenizer_file) if contract.generation else None
    return LoadedModel(contract, engine, reader, usage, late, writer)


def _check_listed(folder: Path, contract: Contract) -> None:
    """Refuse graphs and weights that would be loaded and have no hash in the contract."""
    further = [TAPPED_GRAPH] if contract.attention else []
    further += [CONTRIBUTIONS_GRAPH] if contract.contributions else []
    further += [HIDDEN_GRAPH] if contract.hidden_states else []
    further += contract.explaining_files
    further += [LOWERED_GRAPH] if LOWERED_GRAPH in contract.files else []
    further += [DECODER_GRAPH] if contract.generation else []
    further += [LOWERED_DECODER_GRAPH] if LOWERED_DECODER_GRAPH in contract.files else []
    for graph in (PLAIN_GRAPH, *further):
        _check_named(folder, graph, contract)
        for name in _locations(folder / graph):
            _check_named(folder, name, contract)


def _check_named(folder: Path, name: str, contract: Contract) -> None:
    if name not in contract.files:
        raise StartError(f"{folder / name}: not in files of its contract; expected each with its sha256")


def _locations(graph: Path) -> set[str]:
    """Name the files of a graph's weights."""
    try:
        return ExternalData(graph).locations()
    except (OSError, DecodeError):  # the engine says what is wrong with it
        return set()


def _read_contract(folder: Path) -> Contract:
    if (folder / PLAIN_GRAPH).exists() and not any((folder / name).exists() for name in (CONTRACT_FILE, TAPPED_GRAPH)):
        return describe_graph(folder)
    return read_contract(folder / CONTRACT_FILE)
