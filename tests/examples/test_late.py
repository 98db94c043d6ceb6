"""The model of late interaction that examples make of a network of sentence vectors."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from examples.late import write_folder
from export.sources import load_folder
from tests.export.families import FAMILIES, shallow
from tests.export.families import write_folder as write_network
from tests.golden.make import make_tokenizer


def test_token_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    """Read as PyLate's folders are: no prefixes, nothing filled up or skipped, and an identity for a projection."""
    network = write_network(shallow(FAMILIES["bert"]), tmp_path / "network")
    make_tokenizer().save(str(network / "tokenizer.json"))
    write_folder(network, tmp_path / "late")
    source = load_folder(tmp_path / "late")
    assert source.late
    width = source.late.dim
    weight = load_file(tmp_path / "late" / "1_Dense" / "model.safetensors")["linear.weight"]
    assert torch.equal(weight, torch.eye(width))
    assert (source.late.query_prefix, source.late.document_prefix, source.late.filler) == (None, None, None)
    assert source.late.skipped == ()
