"""A contract that says of a decoder what its graph is not is refused when it is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.config import EMBEDDED_MODELS
from server.errors import StartError
from tests.server.repository.folders import load


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda g: g.update(max_tokens=65), r"generation\.max_tokens: 65; the graph cannot run that: "),
        (lambda g: g.update(starts={"plain": [1] * 20}), r"generation\.max_tokens: 63; the graph cannot run that: "),
        (lambda g: g.update(vocab_size=80), r"decoder\.onnx: logits is \[.*75\]; its contract says \[80\]"),
        (lambda g: g.update(self_biases=1), r"decoder\.onnx: has the outputs .*; its contract says .*'self_bias\.0'"),
        (lambda g: g.update(self_biases=7), r"self_biases: 7; expected 0, 1 or num_layers, 3"),
        (
            lambda g: g.update(alignment_heads=[[1, 4]]),
            r"alignment_heads: \[1, 4\]; expected a layer below 3 and a head",
        ),
        (lambda g: g.update(num_layers=2), r"decoder\.onnx: has the inputs .*; its contract says "),
        (
            lambda g: g.update(num_heads=2, head_dim=128),
            r"output 'cross_key\.0' is \['batch', 4, 'seq_len'",
        ),
        (lambda g: g.update(end_tokens=[75]), r"end_tokens: 75; expected a token below vocab_size, 75"),
        (
            lambda g: g.update(default_start="none"),
            r"default_start: 'none'; expected one of starts or of chosen_starts",
        ),
        (lambda g: g.update(chosen_starts={"any": ["plain", "x"]}), r"chosen_starts: 'any': \['plain', 'x'\]; expec"),
        (lambda g: g.update(chosen_starts={"plain": ["stress"]}), r"chosen_starts: 'plain': \['stress'\]; expected"),
        (lambda g: g.update(chosen_starts={"any": ["plain", "stress"]}), r"expected .* of one length and first token"),
        (lambda g: g.update(chosen_starts={"any": []}), r"chosen_starts: 'any': \[\]; expected another name"),
        (lambda g: g.update(forced_start_tokens=1), r"forced_start_tokens: 1; expected fewer than each start has"),
        (lambda g: g.update(forced_end_token=75), r"forced_end_token: 75; expected a token below vocab_size, 75"),
        (lambda g: g.update(chosen_starts={"": ["plain"]}), r"chosen_starts: '': \['plain'\]; expected another name"),
        (
            lambda g: g.update(chosen_starts={"any": ["plain"] * 5000}),
            r"chosen_starts: 'any': \['plain'(, 'plain'){9}\]; expected .*, once each, ",
        ),
        (
            lambda g: g.update(early_stopping="soon"),
            r"early_stopping: .*'soon'; expected true, false or 'never'",
        ),
        (lambda g: g.update(early_stopping=1), r"early_stopping: .*1; expected true, false or 'never'"),
        (lambda g: g.update(tokenizer_file="../x"), r"generation\.tokenizer_file: '\.\./x' is none of files"),
    ],
)
def test_a_contract_that_lies_of_a_decoder_stops_the_start(
    tmp_path: Path, lie: Callable[[dict[str, Any]], None], message: str
) -> None:
    """The line names the field or the graph, what is said and what there is."""
    models = tmp_path / "models"
    shutil.copytree(EMBEDDED_MODELS / "g2p", models / "g2p")
    path = models / "g2p" / "1" / "contract.json"
    contract = json.loads(path.read_text())
    lie(contract["generation"])
    path.write_text(json.dumps(contract))
    with pytest.raises(StartError, match=message):
        load(models)
