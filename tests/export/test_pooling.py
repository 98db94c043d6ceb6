"""A file that pools its positions by attention is exported with that as a layer."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from export.build import build
from export.graph_source import load_graph
from tests.export.networks import WIDTH, Texts, spread, write_texts


class Pooled(Texts):
    """Weighs its positions by one learned vector (Yang et al. 2016, "Hierarchical Attention Networks")."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(WIDTH, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last state and what is pooled [B, D]."""
        state, _ = self.explain(input_ids, attention_mask, token_type_ids)
        scores = self.score(state.tanh()).masked_fill(attention_mask[:, :, None] == 0, torch.finfo(torch.float32).min)
        return state, (scores.softmax(1) * state).sum(1)


@pytest.mark.parametrize("opset", [14, 17])
def test_a_pooling_by_attention_is_the_last_layer(opset: int, out: Path, tmp_path: Path) -> None:
    """One query of one head over all tokens, verified as every other layer is."""
    onnx.save_model(write_texts(spread(Pooled()), opset), tmp_path / "pooled.onnx")
    contract = build(load_graph(tmp_path / "pooled.onnx"), out).contract
    assert [layer.kind for layer in contract.attention] == ["self", "self", "cross"]
    last = contract.attention[-1]
    assert (last.num_heads, last.query_axis, last.key_axis) == (1, 1, "seq_len")
    checks = {line.check for line in contract.verification if line.tensor == last.output}
    assert {"rows sum to 1", "row alone", "as served"} <= checks
