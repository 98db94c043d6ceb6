"""The devices as the dispatcher knows them: what runs on each, how fast it is, and which models have their part."""

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.scheduling.batch import Batch

_MUCH_SLOWER = 1.5  # times as slow as another device; what is less may be chance
_SHORT_SHARE = 0.25  # of the shortest run of an instance, which a run by express takes at most
_NEWEST_SHARE = 0.1  # how much the newest run tells of a device's pace


@dataclass(eq=False)
class Place:
    """One device.

    Attributes:
        name: As metrics and logs have it.
        instances: Batches that run there at a time.
        ready: What its instances wait for; all devices have one lock.
        idle: Instances that are free.
        slowdown: How many times longer a run takes here than is expected of all devices together.
        is_up: Whether it is in service.
    """

    name: str
    instances: int
    ready: threading.Condition
    idle: int = field(init=False)
    slowdown: float = 1.0
    is_up: bool = True

    def __post_init__(self) -> None:
        self.idle = self.instances

    @property
    def busy_slowdown(self) -> float:
        """How many times longer a run takes that begins now: those of one device share it."""
        return self.slowdown * (1 + self.instances - self.idle)

    def learn(self, expected_seconds: float, seconds: float) -> None:
        """Compare what a run took with what was expected of it here."""
        if expected_seconds > 0:
            self.slowdown *= 1 + _NEWEST_SHARE * (min(max(seconds / expected_seconds, 0.1), 10.0) - 1)


@dataclass(frozen=True)
class Room:
    """What models' own bounds leave to an instance that cuts a batch.

    Attributes:
        full: Names of models of which as many batches run on its device as may.
        left: How many more may begin, on all devices, of each model that has a bound.
    """

    full: frozenset[str] = frozenset()
    left: Mapping[str, int] = field(default_factory=dict)


ANY_ROOM = Room()


class Places(list[Place]):
    """All devices, by number, and what runs there; the dispatcher's lock is held around every method.

    `bounds` has how many batches of a model may run at a time on each, of models that have a bound.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        super().__init__(places)
        self.bounds: dict[str, int] = {}
        self.running: list[Batch] = []

    @property
    def instances(self) -> int:
        """Batches that run at a time on all devices in service."""
        instances = 0
        for place in self:
            if place.is_up:
                instances += place.instances
        return instances

    @property
    def idle(self) -> int:
        """Instances that are free."""
        idle = 0
        for place in self:
            idle += place.idle
        return idle

    @property
    def short_seconds(self) -> float:
        """How long a run by express may take now: no time where an instance is free."""
        if self.idle:
            return 0.0
        return _SHORT_SHARE * min([run.expected_seconds for run in self.running if run.instances], default=0.0)

    @property
    def busy_models(self) -> set[str]:
        """What the instances run; more of the same would only share the processors."""
        return {run.model for run in self.running if run.instances}

    def begin(self, batch: Batch) -> None:
        """Take note of a batch that begins."""
        self.running.append(batch)
        self[batch.device].idle -= batch.instances

    def end(self, batch: Batch) -> None:
        """Take note that it has ended; of a device that is lost, no instance is free again."""
        self.running.remove(batch)
        if self[batch.device].is_up:
            self[batch.device].idle += batch.instances

    def instances_of(self, model: str) -> int:
        """Batches of a model with a bound that run at a time on all devices in service."""
        return sum(min(place.instances, self.bounds[model]) for place in self if place.is_up)

    def wake_first(self) -> None:
        """Wake an instance where a batch would be done first; of every device, where one may have its part already."""
        free = [place for place in self if place.idle]
        for place in free if self.bounds else (min(free, key=lambda one: one.busy_slowdown),):
            place.ready.notify()

    def wake_all(self) -> None:
        """Wake every instance."""
        for place in self:
            place.ready.notify_all()

    def least_busy(self) -> int:
        """Return the number of the device in service where a run ends first that begins beside the instances."""
        return min(range(len(self)), key=lambda one: self[one].busy_slowdown if self[one].is_up else math.inf)

    def room(self, device: int, beside: Batch | None = None) -> Room:
        """Say what models' own bounds leave to an instance of a device, or would without a batch that runs."""
        runs = Counter((run.model, run.device) for run in self.running if run is not beside)
        up = [number for number, place in enumerate(self) if place.is_up]
        left = {name: sum(max(most - runs[name, number], 0) for number in up) for name, most in self.bounds.items()}
        return Room(frozenset(name for name, most in self.bounds.items() if runs[name, device] >= most), left)

    def wait_for_faster(self, place: Place, seconds: float, now: float) -> float:
        """Say how long a slow device leaves a batch to a faster one, where it is done earlier than here.

        That is where the other is about to end; one that is late is not waited for.

        Args:
            place: The slow device, of which an instance is free.
            seconds: What the batch takes, on a device as fast as all are.
            now: On time.monotonic(), in seconds.
        """
        for run in self.running:
            other = self[run.device]
            is_faster = other.is_up and place.slowdown > _MUCH_SLOWER * other.slowdown
            if is_faster and now < run.ends < now + seconds * (place.slowdown - other.slowdown):
                return run.ends - now
        return 0.0
