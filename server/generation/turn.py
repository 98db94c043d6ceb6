"""A turn of steps as the scheduler knows it: a request of all whose texts are written in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from artifact.contract import Contract
from server.auth.clients import Client
from server.context import RpcContext
from server.generation.steps import Steps
from server.scheduling.batch import BatchItem, GraphKind


@dataclass(slots=True, eq=False)
class Turn(BatchItem):
    """Is computed for several clients, who share what it takes by the rows that they have."""

    runs_once: ClassVar[bool] = False

    @property
    def graph_kind(self) -> GraphKind:
        """The decoder's."""
        return "decoder"

    def bill(self, seconds: float) -> Iterable[tuple[Client, float]]:
        """Say who had how much of it."""
        assert isinstance(self.graph, Steps)  # noqa: S101 -- made for one
        return self.graph.spent.items()

    def charge(self, seconds: float) -> None:
        """Charge those whose rows were written."""
        assert isinstance(self.graph, Steps)  # noqa: S101 -- made for one
        if seconds:
            for client, own_seconds in self.bill(seconds):
                client.quota.charge(self.graph.released[client], own_seconds)


def make_turn(steps: Steps, contract: Contract) -> Turn:
    """Make the next turn of what is written now: as urgent as the most urgent, with the shares of all its clients."""
    writings = steps.all
    clients = {writing.context.share: writing.context.caller.weight for writing in writings}
    context = RpcContext(
        method="Generate",
        model=contract.name,
        caller=Client(f"generation of {contract.name}", weight=max(sum(clients.values()), 1.0)),
        priority=min((writing.context.priority for writing in writings), default=1),
    )
    return Turn(steps, contract, {}, steps.turn_rows, 1, (), (), context)
