"""What the methods of the Open Inference Protocol need of the server."""

from dataclasses import dataclass

from server.api.handler import RpcHandler
from server.api.open_inference.shared_memory import SharedMemory
from server.config import Config
from server.generation.generator import Generator
from server.inference.pipeline import Pipeline
from server.inference.workers import Workers
from server.repository.lifecycle import Repository
from server.telemetry.counts import Counts


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a server that its methods use.

    Attributes:
        rpcs: What every RPC goes through.
        repository: The models.
        pipeline: What computes.
        workers: For decoding and encoding.
        config: The settings.
        counts: Of models.
        memory: Registered regions.
        has_cuda: Whether the server runs on a GPU.
        generator: What writes texts.
    """

    rpcs: RpcHandler
    repository: Repository
    pipeline: Pipeline
    workers: Workers
    config: Config
    counts: Counts
    memory: SharedMemory
    has_cuda: bool
    generator: Generator
