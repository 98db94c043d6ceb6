"""Keeps a model's weights once in memory, however many sessions it has.

Left to itself, every session of ONNX Runtime on the CPU keeps a copy of its own of all matrices, in the order in which
its kernels read them. Here they are written once to a file in that order, and the sessions map that file.
"""

import ctypes
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnxruntime

from server.engine.device import ERRORS_ONLY
from server.engine.external_data import ExternalData, Piece

_log = logging.getLogger(__name__)
_PACKED_FILE = "packed.bin"
_ROOM = 4.0  # free space asked for, times the artifact's size: packed matrices lie beside the others, twice for a while
_ALIGNMENT_BYTES = 64  # of the widest vectors that kernels load


@contextmanager
def packed(
    folder: Path, graphs: Sequence[str], make_options: Callable[[], onnxruntime.SessionOptions]
) -> Iterator[dict[str, Path]]:
    """Pack the weights of an artifact's graphs into a temporary folder, from which sessions are loaded.

    The folder is removed on leaving: what is mapped stays. All graphs refer to one file.

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
            target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regard-")))
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
    pool, known = target / _PACKED_FILE, dict[str, list[Piece]]()
    for graph in graphs:
        path = _pack(folder / graph, target / Path(graph).stem, make_options())
        known |= move_to_pool(path, pool, known)
        yield graph, path


def move_to_pool(graph: Path, pool: Path, known: Mapping[str, list[Piece]]) -> dict[str, list[Piece]]:
    """Let a packed graph refer to a file that all graphs share, so that their pages are in memory once.

    ONNX Runtime writes each graph's weights in an order of its own, and one behind the other: after a constant of odd
    size every matrix begins at an address that its kernels cannot read (they load whole vectors, and end the process).
    In the pool each begins at a multiple of 64 bytes.

    Args:
        graph: With its weights in a file beside it, which is replaced by a link to the pool.
        pool: Is given what it has not.
        known: Where tensors lie in the pool, by name.

    Returns:
        Where this graph's tensors lie in it.
    """
    own, data, places = graph.with_name(_PACKED_FILE), ExternalData(graph), dict[str, list[Piece]]()
    if not own.exists():  # too small to be written apart
        return places
    pool.touch()
    for name, pieces in data.tensors():
        offsets = _places(pool, own, known.get(name, []), pieces)
        places[name] = [Piece(offset, piece.length) for offset, piece in zip(offsets, pieces, strict=True)]
    data.move({name: [piece.offset for piece in pieces] for name, pieces in places.items()})
    own.unlink()
    own.hardlink_to(pool)
    return places


def _places(pool: Path, own: Path, known: Sequence[Piece], pieces: Sequence[Piece]) -> list[int]:
    """Find where a tensor's pieces lie in the pool, which is given those that it has not."""
    same = [piece.length for piece in known] == [piece.length for piece in pieces]
    offsets = list[int]()
    for place, piece in enumerate(pieces):
        content = _bytes_of(own, piece)
        shared = same and _bytes_of(pool, known[place]) == content
        offsets.append(known[place].offset if shared else _append(pool, content))
    return offsets


def _bytes_of(path: Path, piece: Piece) -> bytes:
    with path.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def _append(path: Path, content: bytes) -> int:
    """Write at the next aligned place; returns the offset."""
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        offset = end + -end % _ALIGNMENT_BYTES
        file.seek(offset)
        file.write(content)
        return offset


def give_back_memory() -> None:
    """Return memory that is no longer used to the system, where the C library can (glibc's malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
