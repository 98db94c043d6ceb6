"""What the checks run on a device: regard's own graphs, decoders and engines, each on one device, one run at a time."""

from collections.abc import Collection
from pathlib import Path

from artifact.generation import GenerationContract
from bench.gpu.setting import Part
from server.engine.decoder import Decoder
from server.engine.device import Device, Instances
from server.engine.engine import Engine
from server.engine.session import Graph

_ONE = Instances(1, 1)


def make_graph(path: Path, device: Device, keep_on_device: Collection[str] = ()) -> Graph:
    """Load a graph; outputs of these names stay on the device."""
    return Graph(path, (device,), _ONE, keep_on_device)


def make_decoder(path: Path, generation: GenerationContract, device: Device) -> Decoder:
    """Load the step of a decoder."""
    return Decoder(path, generation, (device,), _ONE)


def make_engine(part: Part, device: Device) -> Engine:
    """Load an artifact as the server does."""
    return Engine(part.folder, part.contract, (device,), _ONE)
