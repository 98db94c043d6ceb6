"""What a contract tells of shapes, and what it refuses."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from artifact.contract import (
    Contract,
    DerivedAxis,
    ImageContract,
    PatchContract,
    TensorContract,
    TextContract,
    read_contract,
)
from artifact.dtypes import BFLOAT16, name_of
from artifact.errors import ContractError, explain
from artifact.verification import Accuracy
from tests.golden import GOLDEN_MODELS, GOLDEN_WHISPER, GOLDEN_WINDOWS

CONTRACT = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")


@pytest.mark.parametrize(
    ("unit", "offset", "name", "positions", "size"),
    [
        (1, 0, "samples", 7, 7),
        (1, 1, "samples + 1", 7, 8),
        (1, -2, "samples - 2", 7, 5),
        (4, 0, "samples // 4", 8, 2),
        (4, 3, "(samples + 3) // 4", 9, 3),
        (320, -80, "(samples - 80) // 320", 16_000, 49),
    ],
)
def test_a_derived_axis_is_named_by_its_rule(unit: int, offset: int, name: str, positions: int, size: int) -> None:
    """And counts as convolutions do."""
    axis = DerivedAxis(of="samples", unit=unit, offset=offset)
    assert (axis.name, axis.size(positions)) == (name, size)


def test_the_shortest_inputs_are_filled_up() -> None:
    """To what the rule says is least, and to nothing where it says nothing."""
    assert DerivedAxis(of="samples", unit=4, offset=0, least=2).size(4) == 2
    assert DerivedAxis(of="samples", unit=4, offset=0).size(3) == 0


def test_sizes_of_derived_axes_come_with_those_of_the_inputs() -> None:
    """Where the input has the axis that they are derived from."""
    derived = (DerivedAxis(of="seq_len", unit=2, offset=0), DerivedAxis(of="absent", unit=2, offset=0))
    contract = CONTRACT.model_copy(update={"derived_axes": derived})
    arrays = {spec.name: np.ones((3, 8), np.int64) for spec in CONTRACT.inputs}
    assert contract.axis_sizes(arrays) == {"batch": 3, "seq_len": 8, "seq_len // 2": 4}


def test_rows_share_a_run_where_the_first_axis_of_everything_is_the_batch() -> None:
    """One output that has another first axis is enough to forbid it."""
    assert CONTRACT.batched
    loose = CONTRACT.outputs[0].model_copy(update={"axes": ("seq_len", "batch")})
    assert not CONTRACT.model_copy(update={"outputs": (loose, *CONTRACT.outputs[1:])}).batched


def test_a_layer_has_the_axes_of_its_weights_norms_and_contributions() -> None:
    """Each under the output's name; what a layer has not, is not there."""
    layer = CONTRACT.attention[0].model_copy(update={"value_norms": "norms", "contribution": "added", "key_axis": 3})
    bare = CONTRACT.attention[1].model_copy(update={"value_norms": None, "contribution": None})
    nothing = {"hidden_states": (), "relevance": None, "other_relevance": (), "similarity": None}
    contract = CONTRACT.model_copy(update={"attention": (layer, bare), **nothing})
    assert contract.further_axes == {
        layer.output: ("batch", 4, "seq_len", 3),
        "norms": ("batch", 4, 3),
        "added": ("batch", "seq_len", 3),
        bare.output: ("batch", 4, "seq_len", "seq_len"),
    }
    assert contract.tapped_outputs == [layer.output, "norms", bare.output]
    assert contract.contributions == ["added"]


def test_relevance_has_a_number_for_each_position_and_two_for_each_row() -> None:
    """And it is of an output that there is."""
    relevance = CONTRACT.relevance
    assert relevance is not None
    axes = CONTRACT.further_axes
    found = [axes[name] for name in relevance.outputs]
    assert found == [("batch", "seq_len"), ("batch",), ("batch",)]
    assert CONTRACT.explains_labels
    without = {**CONTRACT.model_dump(), "relevance": {**relevance.model_dump(), "output": "scores"}}
    with pytest.raises(ValidationError, match=r"relevance\.output: 'scores' is no output"):
        Contract.model_validate(without)


def test_relevance_by_other_methods_stands_beside_that_by_libra() -> None:
    """Each graph once; one of the gradient is for two methods, and can be scaled."""
    assert CONTRACT.relevance
    libra = CONTRACT.relevance.model_dump()
    gradient = {**libra, "graph": "gradient", "rest": None, "scale": "relevance.scale"}
    found = Contract.model_validate({**CONTRACT.model_dump(), "other_relevance": [gradient]})
    assert list(found.label_methods) == ["libra", "gradient", "integrated-gradients"]
    assert found.other_relevance[0].file == "relevance.gradient.onnx"
    alone = CONTRACT.model_copy(update={"other_relevance": ()})
    assert found.further_axes == alone.further_axes
    for wrong, message in (
        ({"other_relevance": [gradient, gradient]}, "other_relevance: 'gradient'; expected each once"),
        ({"other_relevance": [libra]}, "other_relevance: 'libra'; expected each once, and 'libra' in relevance"),
        ({"other_relevance": [{**gradient, "scale": None}]}, "other_relevance: 'gradient' without scale"),
        ({"relevance": gradient}, "relevance.graph: 'gradient'; expected 'libra', others in other_relevance"),
        ({"relevance": {**libra, "rest": None}}, r"relevance\.rest: missing"),
    ):
        with pytest.raises(ValidationError, match=message):
            Contract.model_validate({**CONTRACT.model_dump(), **wrong})


def test_relevance_by_layer_is_a_graph_and_no_method() -> None:
    """With a row for each depth; and nothing of it is missing."""
    assert CONTRACT.relevance
    libra = CONTRACT.relevance.model_dump()
    layers = {**libra, "graph": "layers", "by_layer": "by_layer", "added": "added", "num_layers": 2}
    found = Contract.model_validate({**CONTRACT.model_dump(), "other_relevance": [layers]})
    alone = CONTRACT.model_copy(update={"other_relevance": ()})
    assert (list(found.label_methods), alone.label_layers) == (["libra"], None)
    assert found.label_layers == found.other_relevance[0]
    assert found.label_layers.outputs == (*CONTRACT.relevance.outputs, "by_layer", "added")
    assert found.further_axes["by_layer"] == ("batch", 3, "seq_len")
    assert found.further_axes["added"] == ("batch", 3)
    assert "relevance.layers.onnx" in found.explaining_files
    for name in ("rest", "by_layer", "added", "num_layers"):
        wrong = {**CONTRACT.model_dump(), "other_relevance": [{**layers, name: 0 if name == "num_layers" else None}]}
        with pytest.raises(ValidationError, match=f"other_relevance: 'layers' without {name}"):
            Contract.model_validate(wrong)


def test_a_part_has_the_numbers_of_the_vector() -> None:
    """Which similarities are of."""
    similarity = CONTRACT.similarity
    assert similarity is not None
    assert CONTRACT.further_axes[similarity.part] == ("batch", 32)
    relevance = {**similarity.relevance.model_dump(), "output": "logits"}
    other = {**CONTRACT.model_dump(), "similarity": {**similarity.model_dump(), "relevance": relevance}}
    with pytest.raises(ValidationError, match=r"similarity\.relevance\.output: 'logits'; expected that of embedding"):
        Contract.model_validate(other)


def test_hidden_states_have_the_positions_of_their_axis() -> None:
    """A fixed one, one of an input, and the sequence, which has the positions of the input."""
    state = CONTRACT.hidden_states[1]
    assert (state.layer, state.dim, CONTRACT.further_axes[state.output]) == (1, 32, ("batch", "seq_len", 32))
    for axis, count in ((5, 5), ("target", 3), ("seq_len", 6)):
        one = state.model_copy(update={"position_axis": axis})
        assert one.positions({"target": 3}, 6) == count
        assert one.row_bytes({"target": 3}, 6) == count * 32 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "version"),
        ({"labels": ["a"], "outputs": [], "embedding": None}, "labels: given without an output named logits"),
        ({"embedding": {"output": "x", "dim": 1, "normalized": True}}, "embedding.output: 'x' is no output"),
        ({"text": {"tokenizer_file": "x", "max_tokens": 1}}, "text.tokenizer_file: 'x' is none of files"),
        ({"text": {"tokenizer_file": "tokenizer.json", "max_tokens": 0}}, "max_tokens"),
        ({"image": {"crop_size": 8, "mean": [0], "std": [1]}}, "patches: missing; expected the grid of the images"),
        ({"image": {"crop_size": 0, "mean": [0], "std": [1]}}, "crop_size"),
        ({"files": {"../x": ""}}, "expected names of files in the artifact's own folder"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    """With the field."""
    with pytest.raises(ValidationError, match=message):
        Contract.model_validate(CONTRACT.model_dump(mode="json") | changes)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "C:x", "C:/x", "x:stream", r"\\host\x", "NUL", "com1.onnx", "x.", "x ", "a\nb", "a?"]
)
def test_a_file_is_named_as_every_platform_can_name_it(name: str) -> None:
    """Not by a drive, a stream, a device or a place elsewhere."""
    given = CONTRACT.model_dump(mode="json")
    Contract.model_validate(given | {"files": given["files"] | {"com10.onnx": "", "v1.0 (é).bin": ""}})
    with pytest.raises(ValidationError, match=f"files: {re.escape(repr(name))}: expected names of files in the artif"):
        Contract.model_validate(given | {"files": given["files"] | {name: ""}})


def test_the_shorter_edge_is_no_shorter_than_what_is_cut_out() -> None:
    """As long is enough; one text token and a crop of one pixel are too."""
    given = {"crop_size": 8, "mean": (0.0,), "std": (1.0,)}
    assert ImageContract.model_validate(given | {"resize_shorter_edge": 8}).resize_shorter_edge == 8
    with pytest.raises(ValidationError, match="resize_shorter_edge: 7; expected at least 8"):
        ImageContract.model_validate(given | {"resize_shorter_edge": 7})
    assert ImageContract.model_validate(given | {"crop_size": 1}).crop_size == 1


def test_both_edges_are_resized_or_the_shorter_one() -> None:
    """And neither is shorter than what is cut out."""
    given = {"crop_size": 8, "mean": (0.0,), "std": (1.0,)}
    assert ImageContract.model_validate(given | {"resize_edges": 8}).resize_edges == 8
    with pytest.raises(ValidationError, match="resize_edges: 7; expected at least 8"):
        ImageContract.model_validate(given | {"resize_edges": 7})
    with pytest.raises(ValidationError, match="resize_edges: 9; expected none beside resize_shorter_edge"):
        ImageContract.model_validate(given | {"resize_edges": 9, "resize_shorter_edge": 9})
    with pytest.raises(ValidationError, match="resize_edges: 9; expected none beside pad"):
        ImageContract.model_validate(given | {"resize_edges": 9, "pad": True})


def test_a_default_prompt_is_one_of_the_prompts() -> None:
    """A contract made before there were any has none."""
    given = {"tokenizer_file": "tokenizer.json", "max_tokens": 8}
    assert TextContract.model_validate(given).prompts == {}
    named = {"prompts": {"query": "query: "}, "default_prompt": "query"}
    assert TextContract.model_validate(given | named).default_prompt == "query"
    with pytest.raises(ValidationError, match="default_prompt: 'q'; expected one of prompts"):
        TextContract.model_validate(given | named | {"default_prompt": "q"})


@pytest.mark.parametrize(
    ("measure", "value", "holds", "bound"),
    [
        ("cosine, mean", 0.5, True, "at least 0.5"),
        ("cosine, mean", 0.4, False, "at least 0.5"),
        ("attention, mean difference", 0.5, True, "at most 0.5"),
        ("attention, mean difference", 0.6, False, "at most 0.5"),
        ("label agreement", float("nan"), False, "at least 0.5"),
    ],
)
def test_accuracy_holds_at_its_limit(measure: str, value: float, holds: bool, bound: str) -> None:
    """Cosines must be at least that, differences at most."""
    found = Accuracy.model_validate({"measure": measure, "value": value, "limit": 0.5, "inputs": 1})
    assert (found.holds, found.bound) == (holds, bound)
    free = found.model_copy(update={"limit": None})
    assert (free.holds, free.bound) == (True, "")


def test_what_a_contract_leaves_out() -> None:
    """The first format; padding of 0, no mask, finite numbers; a derived axis that may be empty."""
    spec = TensorContract(name="x", dtype="float32", axes=("batch",))
    assert (spec.pad_value, spec.mask, spec.finite, spec.minimum, spec.maximum) == (0, False, True, None, None)
    assert CONTRACT.model_validate(CONTRACT.model_dump(mode="json", exclude={"format"})).format == 1
    with pytest.raises(ValidationError, match="unit"):
        DerivedAxis(of="samples", unit=0, offset=0)
    assert DerivedAxis(of="samples", unit=4, offset=0).least == 0


def test_patches_lie_behind_the_prefix() -> None:
    """Two tokens and 3 x 5 patches."""
    assert PatchContract(prefix_tokens=2, rows=3, cols=5, patch_size=8).positions == 17


def test_a_layers_weights_have_its_own_axes() -> None:
    """A fixed one, one of an input, one that only a run tells: then the positions of the input."""
    layer = CONTRACT.attention[0]
    for axes, shape in ((("target", 5), (3, 5)), ((7, None), (7, 6)), ((None, "seq_len"), (6, 6))):
        one = layer.model_copy(update={"query_axis": axes[0], "key_axis": axes[1]})
        assert one.shape({"target": 3}, 6) == shape
        assert one.row_bytes({"target": 3}, 6) == 4 * shape[0] * shape[1] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "contract.json: cannot be read: No such file"),
        ("{", r"contract.json: content: Invalid JSON.* \(got '\{'\)$"),
        ("[]", "contract.json: content: Input should be an object"),
        ('{"name": "a"}', r"contract.json: version: Field required$"),
        ('{"name": "a/b"}', r"contract.json: name: String should match pattern .* \(got 'a/b'\)$"),
    ],
)
def test_a_contract_that_cannot_be_read_is_told_by_its_first_fault(
    content: str | None, message: str, tmp_path: Path
) -> None:
    """File, field, reason, and what came where that is short."""
    if content is not None:
        (tmp_path / "contract.json").write_text(content)
    with pytest.raises(ContractError, match=message):
        read_contract(tmp_path / "contract.json")


class _Nested(BaseModel):
    inner: dict[str, int]
    other: int = 0


def test_what_pydantic_refuses_is_explained_in_one_line() -> None:
    """The first fault by its path; at most 80 characters of what came, and none of a secret."""
    with pytest.raises(ValidationError) as refused:
        _Nested.model_validate({"inner": {"a": "x" * 100}, "other": "y"})
    line = "inner.a: Input should be a valid integer, unable to parse string as an integer"
    assert explain(refused.value) == f"{line} (got '{'x' * 80}')"
    assert explain(refused.value, show_value=False) == line
    with pytest.raises(ValidationError) as refused:
        _Nested.model_validate({"other": {"b": 1}, "inner": {}})
    assert explain(refused.value) == "other: Input should be a valid integer"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(object, "string"), ("S3", "string"), ("U3", "string"), (BFLOAT16, "bfloat16"), ("f4", "float32")],
)
def test_dtypes_have_the_names_of_contracts(dtype: Any, name: str) -> None:
    """numpy's, but for strings."""
    assert name_of(np.dtype(dtype)) == name


IMAGES = read_contract(GOLDEN_WINDOWS / "tiny-swin" / "1" / "contract.json")


def changed(**fields: Any) -> dict[str, Any]:
    """Change what a contract of 40 pixels, 10 x 10 patches and windows on grids of 10 and 5 cells says."""
    return IMAGES.model_dump(mode="json") | fields


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ({"rows": 100, "cols": 1}, "patches.rows: 100 cells of 4 pixels on 40 pixels of an image; expected 10"),
        ({"rows": 10, "cols": 5}, "patches.cols: 5 cells of 4 pixels on 40 pixels of an image; expected 10"),
        ({"patch_size": 8}, "patches.rows: 10 cells of 8 pixels on 40 pixels of an image; expected 5"),
        ({"rows": 13, "cols": 13, "patch_size": 3}, "patches.rows: 13 cells of 3 pixels on .* expected a size that"),
        ({"rows": 0}, "patches.rows"),
        ({"patch_size": 0}, "patches.patch_size"),
        ({"prefix_tokens": -1}, "patches.prefix_tokens"),
    ],
)
def test_patches_that_do_not_lie_on_the_image_are_refused(patches: dict[str, int], message: str) -> None:
    """Pictures and distances would be wrong in silence."""
    told = {"prefix_tokens": 0, "rows": 10, "cols": 10, "patch_size": 4} | patches
    with pytest.raises(ValidationError) as refused:
        Contract.model_validate(changed(patches=told))
    assert re.search(message, explain(refused.value))


def test_class_attention_is_one_query_over_a_class_token_and_the_patches() -> None:
    """Of patches that have no class token among them."""
    layer = {"output": "attention.0", "layer": 0, "kind": "cross", "num_heads": 2, "class_attention": True}
    layer |= {"query_axis": 1, "key_axis": 101}
    patches = {"prefix_tokens": 0, "rows": 10, "cols": 10, "patch_size": 4}
    assert Contract.model_validate(changed(attention=[layer])).attention[0].class_attention
    for wrong, grid, message in (
        ({"key_axis": 100}, patches, "attention.0.class_attention: 100 keys; expected 101 keys"),
        ({"query_axis": 2}, patches, "class_attention: of 2 queries, kind 'cross'; expected 1, 'cross'"),
        ({"kind": "self"}, patches, "class_attention: of 1 queries, kind 'self'; expected 1, 'cross'"),
        ({"key_axis": 102}, patches | {"prefix_tokens": 1}, "class_attention: given with patches.prefix_tokens"),
    ):
        with pytest.raises(ValidationError) as refused:
            Contract.model_validate(changed(attention=[layer | wrong], patches=grid))
        assert message in explain(refused.value)


def layers(**window: int) -> list[dict[str, Any]]:
    """Change the third layer's window, on a grid of 5 x 5 cells of 8 pixels."""
    dumped: list[dict[str, Any]] = changed()["attention"]
    dumped[2]["window"] |= window
    dumped[2]["query_axis"] = dumped[2]["window"]["rows"] * dumped[2]["window"]["cols"]
    return dumped


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"rows": 25, "cols": 1}, "attention.2.window.rows: 25 cells of 8 pixels on 40 pixels of an image; expected 5"),
        ({"cell_size": 4}, "attention.2.window.rows: 5 cells of 4 pixels on 40 pixels of an image; expected 10"),
        ({"cell_size": 16}, "attention.2.window.rows: 5 cells of 16 pixels on 40 pixels of an image; expected 2 or 3"),
    ],
)
def test_a_windows_grid_that_does_not_lie_on_the_image_is_refused(window: dict[str, int], message: str) -> None:
    """By the layer's number; also where only the input says how large images are."""
    for further in ({}, {"image": None, "patches": None}):
        with pytest.raises(ValidationError, match=re.escape(message)):
            Contract.model_validate(changed(attention=layers(**window), **further))


@pytest.mark.parametrize("cells", [2, 3])
def test_the_last_cells_of_a_window_may_reach_over_the_image(cells: int) -> None:
    """Where patches are merged of which there is an odd number."""
    Contract.model_validate(changed(attention=layers(rows=cells, cols=cells, cell_size=16)))


def test_images_are_as_large_as_the_input() -> None:
    """Whatever is made of one would not run."""
    with pytest.raises(ValidationError, match=r"image\.crop_size: 32; expected the edges of pixel_values, 40 x 40"):
        Contract.model_validate(changed(image=IMAGES.model_dump(mode="json")["image"] | {"crop_size": 32}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop_samples": 320}, r"audio: the inputs are \['batch', 8, 100\]; expected one of \['batch', 8, 50\]"),
        ({"num_mel_bins": 80}, r"audio: the inputs are \['batch', 8, 100\]; expected one of \['batch', 80, 100\]"),
    ],
)
def test_sound_that_does_not_become_the_input_is_refused(changes: dict[str, int], message: str) -> None:
    """Bins and frames are those of the network."""
    whisper = read_contract(GOLDEN_WHISPER / "tiny-whisper" / "1" / "contract.json").model_dump()
    with pytest.raises(ValidationError, match=message):
        Contract.model_validate(whisper | {"audio": whisper["audio"] | changes})


def test_sources_of_sound_are_all_of_one_size() -> None:
    """As many positions as the encoder's outputs have."""
    whisper = read_contract(GOLDEN_WHISPER / "tiny-whisper" / "1" / "contract.json")
    assert whisper.positions == 50
    for positions, message in (
        (49, r"expected \['batch', 4, 49, 8\]"),
        (None, r"expected \['batch', 4, 'seq_len', 8\]"),
    ):
        generation = whisper.model_dump()["generation"] | {"source_positions": positions}
        with pytest.raises(ValidationError, match=message):
            Contract.model_validate(whisper.model_dump() | {"generation": generation})


def test_an_older_contract_of_one_that_writes_is_read() -> None:
    """Made before there were starts to choose from, and ends that are forced."""
    whisper = read_contract(GOLDEN_WHISPER / "tiny-whisper" / "1" / "contract.json").model_dump()
    for name in ("chosen_starts", "forced_start_tokens", "forced_end_token", "early_stopping"):
        del whisper["generation"][name]
    older = Contract.model_validate(
        whisper | {"generation": whisper["generation"] | {"default_start": "en"}}
    ).generation
    assert older is not None
    assert (older.start_names, older.names_of_start()) == (["de", "de-translate", "en", "en-translate"], ("en",))
    assert (older.early_stopping, older.forced_end_token, older.forced_start_tokens) == (False, None, 0)
