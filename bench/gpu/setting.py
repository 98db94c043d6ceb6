"""What a check is given: the device, the models, and its share of the time."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from artifact.files import versions
from server.engine.device import CPU, Device, choose_device
from server.errors import first_line

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
        device: As --device of the server takes it, one of them; "cpu" is the stand-in, which has all but the device.
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
        return self.device.partition(":")[0] == STAND_IN

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
        """List the newest version of every artifact whose contract can be read, the smallest first."""
        found = [one for one in self._read() if isinstance(one, Part)]
        return sorted(found, key=lambda part: sum(file.stat().st_size for file in part.folder.iterdir()))

    def unreadable(self) -> list[str]:
        """Say which contracts cannot be read, and why."""
        return [one for one in self._read() if isinstance(one, str)]

    def _read(self) -> Iterator[Part | str]:
        for model in sorted(self.models.iterdir()):
            for version in versions(model)[:1]:
                for path in sorted((model / str(version)).rglob(CONTRACT_FILE)):
                    yield _read_part(model, path)


def _read_part(model: Path, path: Path) -> Part | str:
    name = "/".join(path.parent.relative_to(model.parent).parts)
    try:
        return Part(name, model.name, path.parent, read_contract(path))
    except Exception as error:  # whatever it is, the others are checked
        return f"{name}: {first_line(error)}"


def cpus() -> int:
    """CPUs of this process."""
    return len(os.sched_getaffinity(0))
