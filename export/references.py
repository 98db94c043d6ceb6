"""What exported graphs are compared with: networks that say what they attended to, and graphs as they were read."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor

from export.accuracy import Answer
from export.graph import externalize
from export.hidden_states import PROJECTED, name_states
from export.queries import told_of_some_queries
from export.session import open_session, run_session
from export.traits import Feed


class Reference(Protocol):
    """Answers as the graphs should."""

    @property
    def check(self) -> str:
        """What comparing with it is called."""
        ...

    def __call__(self, feed: Feed) -> Answer:
        """Return the outputs by name, and each layer's weights, float [B, H, Q, K]; none where nothing tells them."""
        ...

    def with_some_queries(self, feed: Feed) -> Answer:
        """Return the same with the weights of some queries, see export/queries.py; they are never held as a whole."""
        ...


class Exportable(Protocol):
    """A network that says what it attended to: one of model/, or one of the transformers library."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """In the order in which it takes them."""
        ...

    def __call__(self, *inputs: Any) -> Any:
        """Return its outputs by name."""
        ...

    @property
    def explain(self) -> Callable[..., tuple[dict[str, Tensor], list[Tensor]]]:
        """Return them and each layer's weights, float [B, H, Q, K]."""
        ...

    @property
    def show_states(self) -> Callable[..., tuple[dict[str, Tensor], list[Tensor]]]:
        """Return them and what enters the first layer and leaves each, float [B, N, D]; none where nothing tells."""
        ...


@dataclass(frozen=True, eq=False)
class NetworkReference:
    """Answers of a network in numpy, with eager attention; hidden states, if wanted, among the outputs."""

    network: Exportable
    with_states: bool = False
    check: str = "against torch"

    def __call__(self, feed: Feed) -> Answer:
        """Run the network fused for its outputs and eager for its attention."""
        with torch.inference_mode():
            tensors = self._tensors(feed)
            outputs, attentions = self.network(*tensors), self.network.explain(*tensors)[1]
            shown, layers = self.network.show_states(*tensors) if self.with_states else ({}, [])
            states = name_states(layers) | {name: one for name, one in shown.items() if name == PROJECTED}
        return _in_numpy({**outputs, **states}), [one.numpy() for one in attentions]

    def with_some_queries(self, feed: Feed) -> Answer:
        """Run the network fused alone; of a network that has no fused attention, nothing tells the weights then."""
        with torch.inference_mode(), told_of_some_queries() as attentions:
            tensors = self._tensors(feed)
            if self.with_states:
                outputs, layers = self.network.show_states(*tensors)
            else:
                outputs, layers = self.network(*tensors), []
        return _in_numpy({**outputs, **name_states(layers)}), [one.numpy() for one in attentions]

    def _tensors(self, feed: Feed) -> list[Tensor]:
        return [torch.from_numpy(feed[name]) for name in self.network.input_names]


def _in_numpy(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: one.numpy() for name, one in tensors.items()}


@dataclass(frozen=True, eq=False)
class GraphReference:
    """Answers of a graph as it was read, which tells no attention."""

    session: onnxruntime.InferenceSession
    check: str = "against the file"

    def __call__(self, feed: Feed) -> Answer:
        """Run the graph."""
        return run_session(self.session, feed), []

    def with_some_queries(self, feed: Feed) -> Answer:
        """Run the graph."""
        return self(feed)


def reference_of(network: Exportable, *, with_states: bool = False) -> NetworkReference:
    """Make a reference of a network."""
    return NetworkReference(network, with_states)


def reference_of_graph(graph: ModelProto) -> GraphReference:
    """Make a reference of a graph as it was read; its weights go by way of a file, as messages end at 2 GB."""
    with tempfile.TemporaryDirectory(prefix="regard-") as folder:
        onnx.save_model(externalize(graph, Path(folder, "weights.bin")), Path(folder, "graph.onnx"))
        return GraphReference(open_session(Path(folder, "graph.onnx")))
