"""Networks whose computation follows the longest row of a batch: held to the lengths at which it stays the same."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import transformers
from torch import Tensor, nn

from bench.families import configurations
from export.build import build
from export.errors import VerificationError
from export.graph_source import load_graph
from export.sources import load_folder
from tests.export.families import shallow, write_folder
from tests.export.networks import WIDTH, Texts, spread, write_texts

SPARSE, LONGROPE = "big_bird: block_sparse, longer than its blocks", "phi3: longrope RoPE"
DYNAMIC = "llama: dynamic RoPE"
FREQUENCIES = "its rotary frequencies change for all"


def write(name: str, folder: Path) -> Path:
    """Write the folder of what the matrix of families has by that name, with one layer."""
    return write_folder(shallow(configurations()[name]), folder)


@pytest.mark.parametrize(
    ("name", "longest", "held"),
    [
        (SPARSE, 144, "at most 144 tokens: with more in any row of a batch, the library makes attention sparse"),
        ("big_bird: block_sparse", 64, ""),
        (LONGROPE, 32, f"at most 32 tokens: with more in any row of a batch, {FREQUENCIES} (longrope)"),
        (DYNAMIC, 200, ""),
        ("llama: yarn RoPE", 200, ""),
    ],
)
def test_a_network_takes_no_more_than_what_leaves_other_rows_alone(
    name: str, longest: int, held: str, tmp_path: Path
) -> None:
    """And says so where that is less than it has positions for."""
    source = load_folder(write(name, tmp_path / "net"))
    assert (source.traits.longest, source.token_limit) == (longest, longest)
    assert source.assumed.startswith(held)
    assert bool(source.assumed) == bool(held)


@pytest.mark.parametrize(("name", "tokens", "longest"), [(SPARSE, 120, 144), (LONGROPE, 8, 32)])
def test_beyond_that_the_library_itself_answers_otherwise_in_company(
    name: str, tokens: int, longest: int, tmp_path: Path
) -> None:
    """A row beside one of the longest is as it is alone; beside a longer one it is not."""
    folder = write(name, tmp_path / "net")
    alone = ask(folder, tokens, tokens)
    assert torch.allclose(ask(folder, tokens, longest), alone, atol=1e-5)
    assert not torch.allclose(ask(folder, tokens, longest + 1), alone, atol=1e-3)


def ask(folder: Path, tokens: int, longest: int) -> Any:
    """Ask a fresh network, which may change with what it is asked, for the states of a row beside the longest."""
    network = transformers.AutoModel.from_pretrained(folder).eval()
    ids, mask = torch.full((2, longest), 7), torch.ones(2, longest, dtype=torch.int64)
    ids[0], mask[0, tokens:] = torch.arange(longest) + 3, 0
    with torch.inference_mode():
        return network(input_ids=ids, attention_mask=mask).last_hidden_state[0, :tokens]


def test_what_is_held_is_exported_and_equal(tmp_path: Path) -> None:
    """To the library's own answer, which is free to change at that length: torch could not trace the change."""
    contract = build(load_folder(write(LONGROPE, tmp_path / "net")), tmp_path / "models").contract
    assert contract.text
    assert contract.text.max_tokens == 32
    (line,) = (one for one in contract.verification if (one.tensor, one.check) == ("attention.0", "against torch"))
    assert line.max_abs < 1e-5


class SeenFromAfar(Texts):
    """Doubles all states where any row of the batch has more than 100 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(120, WIDTH)

    def explain(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last state and the weights of each layer."""
        state, weights = super().explain(input_ids, attention_mask, token_type_ids)
        last = torch.arange(input_ids.shape[1]).max()
        return state * torch.where(last >= 100, 2.0, 1.0), weights


def test_a_graph_that_changes_with_a_long_row_is_refused(tmp_path: Path) -> None:
    """Its short rows are compared beside one of the longest, too."""
    onnx.save_model(write_texts(spread(SeenFromAfar())), tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match=r"last_hidden_state: row alone: "):
        build(load_graph(tmp_path / "odd.onnx"), tmp_path / "models")


@pytest.mark.parametrize("name", ["mpt", "ibert"])
def test_for_how_many_tokens_a_table_is_made_is_read(name: str, tmp_path: Path) -> None:
    """MPT calls it max_seq_len, of 66 rows of I-BERT's two stand for none; with more tokens neither runs."""
    assert load_folder(write(name, tmp_path / "net")).traits.longest == 64


@pytest.mark.parametrize(("name", "together"), [("wav2vec2-bert", 1), ("speech_to_text", 4)])
def test_frames_are_filled_up_where_convolutions_join_them_alone(name: str, together: int, tmp_path: Path) -> None:
    """Otherwise one frame of sound would be answered with eight."""
    assert load_folder(write(name, tmp_path / "net")).traits.unit("frames") == together
