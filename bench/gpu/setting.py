"""What a check is given: the device, the models, and its share of the time."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from artifact.files import versions
from server.engine.device import CPU, TENSORRT, Device, choose_device

STAND_IN = "cpu"
PLAIN_CPU = Device("CPU", (CPU,), "to compare with")


@dataclass(frozen=True)
class Part:
    """An artifact, or one tower of two: a folder with graphs and a contract.

    Attributes:
        name: As rows name it: MODEL/VERSION, and the tower.
        model: The name that callers of a server give.
        folder: Its own.
        contract: Its own.
    """

    name: str
    model: str
    folder: Path
    contract: Contract

    @property
    def is_tower(self) -> bool:
        """Whether it is one of two."""
        return self.name.count("/") == 2


@dataclass(frozen=True)
class Setting:
    """What a check is given.

    Attributes:
        device: As --device of the server takes it; "cpu" is the stand-in, which has all of the code but the device.
        models: Folder of artifacts.
        seconds: The check's share.
        began: When it was given that.
    """

    device: str
    models: Path
    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def is_stand_in(self) -> bool:
        """Whether the CPU is in the device's place."""
        return self.device == STAND_IN

    @property
    def seconds_left(self) -> float:
        """Of the share."""
        return self.began + self.seconds - time.monotonic()

    def choose(self) -> Device:
        """Return the device; the stand-in is bound as one is.

        Raises:
            StartError: There is none.
        """
        if self.is_stand_in:
            return Device("CPU", (CPU,), "in the place of a device", bound=True)
        return choose_device(self.device)

    def parts(self) -> list[Part]:
        """List the newest version of every artifact, the smallest first."""
        found = [part for folder in sorted(self.models.iterdir()) for part in _parts_of(folder)]
        return sorted(found, key=lambda part: sum(file.stat().st_size for file in part.folder.iterdir()))


def _parts_of(model: Path) -> Iterator[Part]:
    for version in versions(model)[:1]:
        folder = model / str(version)
        for path in sorted(folder.rglob(CONTRACT_FILE)):
            name = "/".join(path.parent.relative_to(model.parent).parts)
            yield Part(name, model.name, path.parent, read_contract(path))


def with_options(device: Device, **options: Any) -> Device:
    """Return a device whose CUDA provider has further options; the device itself where there is no such provider."""
    if device.gpu is None:
        return device
    providers = tuple(
        (one[0], {**one[1], **options}) if isinstance(one, tuple) and one[0] != TENSORRT else one
        for one in device.providers
    )
    return replace(device, providers=providers)


def cpus() -> int:
    """CPUs of this process."""
    return len(os.sched_getaffinity(0))
