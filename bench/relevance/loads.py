"""What is measured: models and what they are sent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.contract import CONTRACT_FILE, read_contract
from bench.faithfulness.__main__ import EMBEDDED, newest
from bench.faithfulness.measures import methods
from regard import Client, FailedPrecondition, RelevanceRequest

_SANDAL = Path(__file__).parents[2] / "examples" / "clothing" / "sandal.png"
_TEXT = "It takes a while, but by the end it is a warm and funny film about people who are not."


@dataclass(frozen=True)
class Load:
    """A model and what it is sent.

    Attributes:
        artifact: Folder of the version.
        inputs: One input of a call, as Client.classify_many takes it.
        size: Of its plain requests, as bench.workloads takes it.
    """

    artifact: Path
    inputs: dict[str, Any]
    size: str

    @property
    def name(self) -> str:
        """The model's."""
        return self.artifact.parent.name

    @property
    def label(self) -> str:
        """The label that is explained: the model's first."""
        return read_contract(self.artifact / CONTRACT_FILE).labels[0]


def find_loads(models: Path) -> tuple[list[Load], list[str]]:
    """The models that have relevance; and lines that say which has not, and why."""
    loads, left_out = list[Load](), list[str]()
    for model, inputs, size in (
        (EMBEDDED / "fashion", {"images": [_SANDAL.read_bytes()]}, "1x28px"),
        (models / "sentiment", {"texts": [_TEXT]}, "16"),
    ):
        try:
            loads.append(Load(newest(model), inputs, size))
        except ValueError as error:
            left_out.append(f"{model.name} is left out: {error}")
    return loads, left_out


def find_methods(client: Client, load: Load) -> tuple[dict[str, RelevanceRequest], list[str]]:
    """Requests by the methods that a model has; and lines that say which it has not."""
    asked, left_out = dict[str, RelevanceRequest](), list[str]()
    for method in methods():
        request = RelevanceRequest(label=load.label, method=method)
        try:
            list(client.classify_many(**load.inputs, model=load.name, relevance=request))
            asked[method] = request
        except FailedPrecondition:
            left_out.append(f"{load.name}: {method} is left out: the model was exported without it")
    return asked, left_out
