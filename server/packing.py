"""Keeps a model's weights once in memory, however many sessions it has; the engine loads its graphs through this.

Left to itself, every session of ONNX Runtime on the CPU keeps a copy of its own of all matrices, in the order in which
its kernels read them. Here they are written once to a file in that order, and the sessions map that file.
"""

import ctypes
import filecmp
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnxruntime

_log = logging.getLogger(__name__)
_PACKED_FILE = "packed.bin"
_ROOM = 4.0  # free space asked for, times the artifact's size: packed matrices lie beside the others, for two graphs
_LEAST_SHARED_BYTES = "session.optimized_model_external_initializers_min_size_in_bytes"
_SMALL_BYTES = 1024  # ONNX Runtime's default: what is smaller stays in each graph
_ERRORS_ONLY = 3  # ONNX Runtime warns that a packed graph belongs to this machine, which is meant


@contextmanager
def packed(
    folder: Path, graphs: Sequence[str], inline_bytes: int, make_options: Callable[[], onnxruntime.SessionOptions]
) -> Iterator[dict[str, Path]]:
    """Pack the weights of an artifact's graphs into a temporary folder, from which sessions are loaded.

    The folder is removed on leaving: what is mapped stays. The plain and the tapped graph share one file, since their
    weights come out the same to the last byte; where they ever should not, each keeps its own.

    Args:
        folder: The artifact's.
        graphs: File names of its graphs.
        inline_bytes: Size of the largest tensor that a graph has to itself; what is larger is shared.
        make_options: Those that the sessions are going to have: packing depends on them.

    Yields:
        Where to load each graph from: the artifact's own folder where packing is not possible.
    """
    sources = {graph: folder / graph for graph in graphs}
    with ExitStack() as stack:
        try:
            target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regard-")))
            _check_room(target, folder)
            sources = {
                graph: _pack(folder / graph, target / Path(graph).stem, inline_bytes, make_options())
                for graph in graphs
            }
            _share_files([path.with_name(_PACKED_FILE) for path in sources.values()])
            give_back_memory()
        except Exception as error:  # ONNX Runtime's exceptions have no common base; what is damaged fails again below
            _log.warning("%s: each session keeps its own copy of the weights: %s", folder, str(error).strip())
            sources = {graph: folder / graph for graph in graphs}
        yield sources


def _check_room(target: Path, folder: Path) -> None:
    wanted_bytes = int(_ROOM * sum(path.stat().st_size for path in folder.iterdir() if path.is_file()))
    if shutil.disk_usage(target).free < wanted_bytes:
        raise OSError(f"{target.parent} has no room for {wanted_bytes} bytes")


def _pack(graph: Path, target: Path, inline_bytes: int, options: onnxruntime.SessionOptions) -> Path:
    """Write a packed graph and its weights; returns the graph's path."""
    target.mkdir()
    options.log_severity_level = _ERRORS_ONLY
    options.optimized_model_filepath = str(target / graph.name)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _PACKED_FILE)
    options.add_session_config_entry(_LEAST_SHARED_BYTES, str(max(_SMALL_BYTES, inline_bytes + 1)))
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return target / graph.name


def _share_files(files: Sequence[Path]) -> None:
    """Let files that are the same be one, so that their pages are in memory once."""
    first, *others = files
    for other in others:
        if filecmp.cmp(first, other, shallow=False):
            other.unlink()
            other.hardlink_to(first)


def give_back_memory() -> None:
    """Return memory that is no longer used to the system, where the C library can (glibc's malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
