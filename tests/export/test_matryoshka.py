"""The sizes that vectors may be cut to: told by config.json or on the command line, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from artifact.contract import Contract, EmbeddingContract
from export.__main__ import app
from export.build import build
from export.graph_source import load_graph
from export.matryoshka import told_by_config, told_by_option
from export.sources import load_folder
from model.checkpoint import CheckpointError
from tests.export.command_line import export
from tests.export.sentences import pooling, write_sentence_folder
from tests.golden.make import make_tokenizer

VECTOR = EmbeddingContract(output="embedding", dim=32, normalized=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of sentence-transformers whose config.json tells sizes."""
    written = write_sentence_folder(tmp_path / "net", pooling("mean_tokens"))
    make_tokenizer().save(str(written / "tokenizer.json"))
    return written


def tell(folder: Path, **settings: Any) -> None:
    """Add to config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def dims_of(contract: Contract) -> tuple[int, ...]:
    """Of a contract with an embedding."""
    assert contract.embedding is not None
    return contract.embedding.matryoshka_dims


def test_a_folder_tells_them(folder: Path, tmp_path: Path) -> None:
    """Its own size is one that need not be told; the command line's go before."""
    assert load_folder(folder).traits.embedding.matryoshka_dims == ()  # type: ignore[union-attr]
    width = load_folder(folder).traits.embedding.dim  # type: ignore[union-attr]
    tell(folder, matryoshka_dimensions=[width, 16, 8])
    assert dims_of(export(folder, tmp_path / "models")) == (8, 16)
    assert dims_of(export(folder, tmp_path / "others", "--matryoshka-dims", "4,8")) == (4, 8)


def test_of_an_onnx_file_the_config_beside_it_tells_them(folder: Path, tmp_path: Path) -> None:
    """As in the folder "onnx" of a checkpoint."""
    built = build(load_folder(folder), tmp_path / "models")
    shutil.copytree(built.folder, folder / "onnx")
    tell(folder, matryoshka_dimensions=[8, 16])
    embedding = load_graph(folder / "onnx" / "model.onnx").traits.embedding
    assert embedding is not None
    assert embedding.matryoshka_dims == (8, 16)


def test_a_folder_that_names_no_sizes_is_told_how_they_are(folder: Path) -> None:
    """Nothing is cut until somebody says to which sizes."""
    assert "matryoshka" not in load_folder(folder).assumed
    tell(folder, is_matryoshka=True)
    source = load_folder(folder)
    assert source.assumed == (
        "config.json has is_matryoshka and no sizes: vectors are cut to those of --matryoshka-dims alone"
    )
    assert source.traits.embedding is not None
    assert source.traits.embedding.matryoshka_dims == ()
    tell(folder, matryoshka_dimensions=[8])
    assert "matryoshka" not in load_folder(folder).assumed


def test_sparse_vectors_are_not_cut() -> None:
    """Their numbers are weights of words, none of which stands for others."""
    sparse = EmbeddingContract(output="embedding", dim=32, normalized=False, sparse=True)
    assert told_by_config(sparse, {"matryoshka_dimensions": [8]}) is sparse
    with pytest.raises(CheckpointError, match=r"--matryoshka-dims: 8; expected none of a network that gives sparse"):
        told_by_option(sparse, "8")
    with pytest.raises(ValueError, match="matryoshka_dims: 8; expected none of sparse vectors"):
        EmbeddingContract(output="embedding", dim=32, normalized=False, sparse=True, matryoshka_dims=(8,))


def test_a_contract_has_each_size_once() -> None:
    """So that no description is longer than the vector."""
    for dims in ((8, 8), (16, 8)):
        with pytest.raises(ValueError, match="matryoshka_dims: not ascending; expected each size once"):
            EmbeddingContract(output="embedding", dim=32, normalized=True, matryoshka_dims=dims)


def test_sizes_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    """In one line, with what was expected."""
    for told in ("8", [8, "16"], [True]):
        with pytest.raises(CheckpointError, match=r"config\.json: matryoshka_dimensions: .*; expected a list of integ"):
            told_by_config(VECTOR, {"matryoshka_dimensions": told})
    for told_dims in ([0], [8, 64]):
        with pytest.raises(CheckpointError, match=r"matryoshka_dimensions: \d+; expected from 1 to 32"):
            told_by_config(VECTOR, {"matryoshka_dimensions": told_dims})
    assert told_by_config(None, {"matryoshka_dimensions": [8]}) is None
    with pytest.raises(CheckpointError, match=r"--matryoshka-dims: 8; expected none of a network that gives no vec"):
        told_by_option(None, "8")
    done = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "models"), "--matryoshka-dims", "8;16"])
    assert done.exit_code == 1
    assert "--matryoshka-dims: '8;16'; expected integers separated by commas" in done.output.replace("\n", " ")
    with pytest.raises(ValueError, match="matryoshka_dims: 32; expected from 1 to below dim, 32"):
        EmbeddingContract(output="embedding", dim=32, normalized=True, matryoshka_dims=(32,))
