"""What the checks run on a device: regard's own graphs, decoders and engines, each on one device, one run at a time."""

from collections.abc import Collection
from pathlib import Path

from artifact.contract import PLAIN_GRAPH
from artifact.generation import GenerationContract
from bench.gpu.setting import PLAIN_CPU, Part, cpus
from server.engine.decoder import Decoder
from server.engine.device import Device, Instances
from server.engine.engine import Engine
from server.engine.execution import Execution, choose
from server.engine.session import Graph

_ONE = Instances(1, 1)


def _instances(device: Device) -> Instances:
    return Instances(1, cpus()) if device is PLAIN_CPU else _ONE


def make_graph(path: Path, device: Device, keep_on_device: Collection[str] = ()) -> Graph:
    """Load a graph; outputs of these names stay on the device. What is compared with has all CPUs."""
    return Graph(path, (device,), _instances(device), keep_on_device)


def make_decoder(path: Path, generation: GenerationContract, device: Device) -> Decoder:
    """Load the step of a decoder."""
    return Decoder(path, generation, (device,), _instances(device))


def make_plain(part: Part, device: Device, wanted: Execution) -> tuple[Graph, str]:
    """Load an artifact's plain graph to run as the server's settings want it; what was measured is told, too."""
    path = part.folder / PLAIN_GRAPH
    graph = make_graph(path, device)
    return graph, choose(path, part.contract, (device,), graph, wanted)


def make_engine(part: Part, device: Device) -> Engine:
    """Load an artifact as the server does."""
    return Engine(part.folder, part.contract, (device,), _ONE)
