"""What exported graphs are compared with: networks that say what they attended to, and graphs as they were read."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import onnx
import torch
from onnx import ModelProto
from torch import Tensor

from export.accuracy import Answer
from export.graph import externalize
from export.hidden_states import PROJECTED, name_states
from export.session import open_session, run_session
from export.traits import Feed

Reference = Callable[[Feed], Answer]


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


def reference_of(network: Exportable, *, with_states: bool = False) -> Reference:
    """Make a reference of a network: answers in numpy, eager attention; hidden states, if wanted, among the outputs."""

    def ask(feed: Feed) -> Answer:
        with torch.inference_mode():
            tensors = [torch.from_numpy(feed[name]) for name in network.input_names]
            outputs, attentions = network(*tensors), network.explain(*tensors)[1]
            shown, layers = network.show_states(*tensors) if with_states else ({}, [])
            states = name_states(layers) | {name: one for name, one in shown.items() if name == PROJECTED}
        return {name: one.numpy() for name, one in {**outputs, **states}.items()}, [one.numpy() for one in attentions]

    return ask


def reference_of_graph(graph: ModelProto) -> Reference:
    """Make a reference of a graph as it was read; its weights go by way of a file, as messages end at 2 GB."""
    with tempfile.TemporaryDirectory(prefix="regard-") as folder:
        onnx.save_model(externalize(graph, Path(folder, "weights.bin")), Path(folder, "graph.onnx"))
        session = open_session(Path(folder, "graph.onnx"))

    def ask(feed: Feed) -> Answer:
        return run_session(session, feed), []

    return ask
