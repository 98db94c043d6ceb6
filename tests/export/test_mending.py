"""What torch's exporter does not manage by itself, on networks of a few lines."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS
from export.errors import TraceError
from export.graph import to_onnx
from export.traits import InputSpec, Traits

TRAITS = Traits((InputSpec("x", (BATCH_AXIS, SEQUENCE_AXIS, 8)),), longest=32)


class OneKeyHead(nn.Module):
    """Two query heads attend to one key head, as Falcon's do; an idle reshape follows, as the library's does."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Attend."""
        query = x.reshape(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
        one = x[:, None, :, :4]
        attended = functional.scaled_dot_product_attention(query, one, one)
        attended = attended.reshape(attended.shape[0], -1, x.shape[1], 4)
        return {"y": attended.transpose(1, 2).flatten(2)}


class OneRowMask(nn.Module):
    """A mask of one row for all queries, as LayoutLM's."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Attend to where the first number is positive."""
        heads = x.reshape(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
        mask = torch.where(x[:, None, None, :, 0] > 0, 0.0, -1.0)
        return {"y": functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)}


class SpecialSize(nn.Module):
    """Goes another way at one size, as GPT-Neo's mask does."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Add nothing, in two ways."""
        return {"y": x + 0 if x.shape[1] == 32 else x * 1}


class OneSize(nn.Module):
    """Works at one size only."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Add a table of the size that is traced."""
        return {"y": x + torch.ones(16, 8)}


def run(graph: ModelProto, x: Tensor) -> np.ndarray:
    """Run a graph."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x.numpy()})
    return np.asarray(y)


@pytest.mark.parametrize("network", [OneKeyHead(), OneRowMask(), SpecialSize()])
def test_what_torch_allows_is_exported_for_every_size(network: nn.Module) -> None:
    """Within 1e-5 of PyTorch."""
    graph = to_onnx(network, TRAITS)
    for length in (1, 5, 32):
        x = torch.randn(3, length, 8, generator=torch.Generator().manual_seed(length))
        np.testing.assert_allclose(run(graph, x), network(x)["y"].numpy(), atol=1e-5)


def test_an_idle_reshape_does_not_stand_behind_attention() -> None:
    """The rules of tapping follow values to what they are multiplied with."""
    graph = to_onnx(OneKeyHead(), TRAITS)
    (attention,) = (node for node in graph.graph.node if node.op_type == "Attention")
    takers = [node.op_type for node in graph.graph.node if attention.output[0] in node.input]
    assert takers == ["Transpose"]


def test_an_axis_that_code_fixes_is_refused_by_name() -> None:
    """With the size it would have to have."""
    with pytest.raises(TraceError, match=r"torch cannot export it: .*seq_len.*\b16\b"):
        to_onnx(OneSize(), TRAITS)


def test_inputs_too_short_for_one_frame_are_filled_up_with_zeros() -> None:
    """Where many positions become one."""

    class Frames(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"y": functional.avg_pool1d(x[:, None], 4)[:, 0]}

    traits = Traits((InputSpec("x", (BATCH_AXIS, "samples")),), other_axes={"samples": 400}, units={"samples": 4})
    graph = to_onnx(Frames(), traits)
    np.testing.assert_array_equal(run(graph, torch.full((1, 2), 8.0)), [[4.0, 0.0]])
    assert run(graph, torch.ones(2, 40)).shape == (2, 10)
