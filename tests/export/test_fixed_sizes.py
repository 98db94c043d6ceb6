"""ONNX files of fixed sizes, as torch.onnx.export makes them unless told otherwise: served as they are, or refused."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from typer.testing import CliRunner

import regard
from artifact.contract import read_contract
from export.__main__ import app
from tests.export.command_line import export, refused
from tests.export.networks import WIDTH, Images, Texts, spread, write_images, write_onnx
from tests.export.tapping import numbers
from tests.golden import GOLDEN_NETWORK
from tests.processes import PHOTOS

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def one_text(*axes: int) -> ModelProto:
    """Export the network on texts as torch.onnx.export does by default, but for the axes that are to be symbolic."""
    ones = torch.ones(1, 6, dtype=torch.int64)
    named = {name: {axis: f"axis_{axis}" for axis in axes} for name in (*NAMES, "last_hidden_state")}
    return write_onnx(spread(Texts()), dict.fromkeys(NAMES, ones), named, 17, ["last_hidden_state", "embedding"])


@pytest.mark.parametrize("dynamo", [False, True])
def test_an_image_graph_of_one_row_is_served(dynamo: bool, out: Path, tmp_path: Path, start_process: Any) -> None:
    """What torch.onnx.export gives where no axis is said to be symbolic; images are taken one by one."""
    network, pixels = spread(Images()), torch.from_numpy(numbers(1, 3, 32, 32))
    if dynamo:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations
            program = torch.onnx.export(network, (pixels,), dynamo=True, verbose=False, output_names=["logits"])
        assert program is not None
        model = program.model_proto
    else:
        model = write_onnx(network, {"pixel_values": pixels}, {}, 17, ["logits"])
    onnx.save_model(model, tmp_path / "one.onnx")
    contract = export(tmp_path / "one.onnx", out)
    assert not contract.batched
    assert all(layer.contribution and layer.value_norms for layer in contract.attention)
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        given = client.predict({contract.inputs[0].name: pixels.numpy()}, attention=regard.AttentionRequest())
        layers = list(client.attend(image=PHOTOS / "chelsea.jpg"))
    with torch.no_grad():
        logits, weights = network.explain(pixels)
    np.testing.assert_allclose(given.outputs["logits"], logits.numpy(), atol=1e-4)
    assert given.attention is not None
    np.testing.assert_allclose(given.attention.layer(1).weights, weights[1].numpy(), atol=1e-5)
    assert [one.layers[0].weights.shape for one in layers] == [(4, 17, 17)] * 2


def test_a_text_graph_of_one_row_is_served(out: Path, tmp_path: Path, start_process: Any) -> None:
    """Its length is free: texts are read, and run one by one."""
    onnx.save_model(one_text(1), tmp_path / "one.onnx")
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", tmp_path / "tokenizer.json")
    contract = export(tmp_path / "one.onnx", out)
    assert contract.text
    assert not contract.batched
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        answer = client.embed(text="the cat sat", attention=regard.AttentionRequest())
    assert answer.attention is not None
    assert answer.attention.layer(-1).weights.shape == (4, 5, 5)
    assert answer.vector.shape == (WIDTH,)


@pytest.mark.parametrize("axes", [(), (0,)])
def test_a_text_graph_of_one_length_says_that_it_takes_tensors_alone(
    axes: tuple[int, ...], out: Path, tmp_path: Path
) -> None:
    """A tokenizer that lies beside it and is not used is no secret."""
    onnx.save_model(one_text(*axes), tmp_path / "short.onnx")
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", tmp_path / "tokenizer.json")
    done = CliRunner().invoke(app, [str(tmp_path / "short.onnx"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    first = "'batch'" if axes else "1"
    assert f"its tokenizer.json is not used: the graph takes input_ids int64 [{first}, 6]" in done.output
    assert read_contract(out / "short" / "1" / "contract.json").text is None


def test_a_graph_whose_axes_are_only_said_to_be_free_is_refused_in_one_line(out: Path) -> None:
    """Sizes that are written into its nodes fit no other batch."""
    model = write_onnx(spread(Images()), {"pixel_values": torch.randn(2, 3, 32, 32)}, {}, 17, ["logits"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    said = refused(model, out)
    assert "does not run on inputs of {'pixel_values': (3, 3, 32, 32)}" in said
    assert said.count("error:") == 1


def test_images_by_two_are_no_images_of_a_caller(out: Path, tmp_path: Path) -> None:
    """A caller's one image would fit no run."""
    model = write_onnx(spread(Images()), {"pixel_values": torch.randn(2, 3, 32, 32)}, {}, 17, ["logits"])
    onnx.save_model(model, tmp_path / "two.onnx")
    assert export(tmp_path / "two.onnx", out).image is None


def test_a_graph_that_gives_the_same_whatever_it_is_given_is_refused(out: Path) -> None:
    """Torch traced a value of the example's as a constant."""
    model = write_images(spread(Images()))
    model.graph.node[0].input[0] = "still"
    model.graph.initializer.append(onnx.numpy_helper.from_array(numbers(1, 3, 32, 32), "still"))
    assert "the graph gives the same whatever it is given; expected outputs that depend on its inputs" in refused(
        model, out
    )
