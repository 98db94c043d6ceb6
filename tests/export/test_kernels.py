from export.kernels import FOLDER, kernels


def test_the_committed_graphs_are_those_that_are_written() -> None:
    """`python -m export.kernels` was run after its last change, and nothing else lies there."""
    written = dict(kernels())
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(written)
    for name, model in written.items():
        assert (FOLDER / f"{name}.onnx").read_bytes() == model.SerializeToString(deterministic=True)
