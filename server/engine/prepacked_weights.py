"""Keeps a model's weights once in memory, however many sessions it has.

Left to itself, every session of ONNX Runtime on the CPU keeps a copy of its own of all matrices, in the order in which
its kernels read them. Here they are written once to a file in that order, and the sessions map that file.

ONNX Runtime writes that file without regard to alignment: after a constant of 1 KiB or more whose size is no multiple
of 64, packed matrices lie where its kernels' vector instructions end the process with SIGSEGV. Such a file is written
again with every piece at a page's beginning.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnxruntime

from server.engine.abandoned import temporary_folder
from server.engine.device import ERRORS_ONLY
from server.engine.external_data import ExternalData, Piece
from server.memory import give_back_memory

_log = logging.getLogger(__name__)
_PACKED_FILE = "packed.bin"
_ROOM = 4.0  # free space asked for, times the artifact's size: packed matrices lie beside the others, twice for a while
_PAGE_BYTES = 4096  # where a piece begins that is written here
_KERNEL_BYTES = 64  # what kernels rely on: the widest vector register, and a cache line


@contextmanager
def packed(
    folder: Path, graphs: Sequence[str], make_options: Callable[[], onnxruntime.SessionOptions]
) -> Iterator[dict[str, Path]]:
    """Pack the weights of an artifact's graphs into a temporary folder, from which sessions are loaded.

    The folder is removed on leaving, or by the next process where this one is killed: what is mapped stays. All graphs
    refer to one file.

    Args:
        folder: The artifact's.
        graphs: File names of its graphs.
        make_options: Those that the sessions are going to have: packing depends on them.

    Yields:
        Where to load each graph from: the artifact's own folder where packing is not possible.
    """
    sources = {graph: folder / graph for graph in graphs}
    with ExitStack() as stack:
        try:
            target = stack.enter_context(temporary_folder())
            _check_room(target, folder)
            sources = dict(_pack_all(folder, graphs, target, make_options))
            give_back_memory()
        except Exception as error:  # ONNX Runtime's exceptions have no common base; what is damaged fails again below
            _log.warning("%s: each session keeps its own copy of the weights: %s", folder, str(error).strip())
            sources = {graph: folder / graph for graph in graphs}
        yield sources


def _check_room(target: Path, folder: Path) -> None:
    wanted_bytes = int(_ROOM * sum(path.stat().st_size for path in folder.iterdir() if path.is_file()))
    if shutil.disk_usage(target).free < wanted_bytes:
        raise OSError(f"{target.parent} has no room for {wanted_bytes} bytes")


def _pack(graph: Path, target: Path, options: onnxruntime.SessionOptions) -> Path:
    """Write a packed graph and its weights; returns the graph's path."""
    target.mkdir()
    options.log_severity_level = ERRORS_ONLY  # not that a packed graph belongs to this machine, which is meant
    options.optimized_model_filepath = str(target / graph.name)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _PACKED_FILE)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return target / graph.name


def _pack_all(
    folder: Path, graphs: Sequence[str], target: Path, make_options: Callable[[], onnxruntime.SessionOptions]
) -> Iterator[tuple[str, Path]]:
    first: Path | None = None
    for graph in graphs:
        path = _pack(folder / graph, target / Path(graph).stem, make_options())
        if first:
            _share(first, path)
        else:
            _align(path)
        first = first or path
        yield graph, path


def _align(graph: Path) -> None:
    """Write a packed graph's weights again, each piece at a page, where any lies as kernels cannot read it."""
    own, data = graph.with_name(_PACKED_FILE), ExternalData(graph)
    tensors = list(data.tensors())
    if all(piece.offset % _KERNEL_BYTES == 0 for _, pieces in tensors for piece in pieces):
        return
    aligned = own.with_suffix(".aligned")
    aligned.touch()
    data.move({name: [_append(aligned, _bytes_of(own, piece)) for piece in pieces] for name, pieces in tensors})
    aligned.replace(own)


def _share(first: Path, other: Path) -> None:
    """Let a graph refer to the weights of the first one, so that their pages are in memory once.

    ONNX Runtime writes each graph's weights in an order of its own. What this graph has and the first has not is
    appended.
    """
    pool, own = (path.with_name(_PACKED_FILE) for path in (first, other))
    known_data, data = ExternalData(first), ExternalData(other)
    if known_data.in_bodies or data.in_bodies:  # there ONNX Runtime refuses a file with several names
        raise ValueError("the body of an If, Loop or Scan has weights of its own")
    known = dict(known_data.tensors())
    if own.exists():
        pool.touch()  # there is none where all of the first graph's weights are small
        data.move({name: _places(pool, own, known.get(name, []), pieces) for name, pieces in data.tensors()})
        own.unlink()
        own.hardlink_to(pool)


def _places(pool: Path, own: Path, known: Sequence[Piece], pieces: Sequence[Piece]) -> list[int]:
    """Find where a tensor's pieces lie in the pool, which is given those that it has not."""
    if [piece.length for piece in known] != [piece.length for piece in pieces]:
        return [_append(pool, _bytes_of(own, piece)) for piece in pieces]
    contents = [(_bytes_of(pool, one), _bytes_of(own, other)) for one, other in zip(known, pieces, strict=True)]
    return [
        piece.offset if shared == wanted else _append(pool, wanted)
        for piece, (shared, wanted) in zip(known, contents, strict=True)
    ]


def _bytes_of(path: Path, piece: Piece) -> bytes:
    with path.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def _append(path: Path, content: bytes) -> int:
    """Write at the next page; returns the offset."""
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        offset = end + -end % _PAGE_BYTES
        file.seek(offset)
        file.write(content)
        return offset
