"""Runs the graphs of one artifact in ONNX Runtime; the scheduler calls it from its one thread."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.contract import PLAIN_GRAPH, TAPPED_GRAPH, Contract, TensorContract
from server.device import Device, check_placement
from server.errors import StartError

Array = NDArray[Any]

_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_INTRA_OP_SPINNING = "session.intra_op.allow_spinning"
_WARNINGS_AND_WORSE = 2


class Engine:
    """The two sessions of one model: plain, and tapped for those who ask for attention."""

    def __init__(self, folder: Path, contract: Contract, device: Device, threads: int) -> None:
        """Load both graphs.

        Raises:
            StartError: A graph cannot be loaded, is not what the contract says, or would run on another device.
        """
        self._contract = contract
        self._plain = _load(folder / PLAIN_GRAPH, device, threads)
        self._tapped = _load(folder / TAPPED_GRAPH, device, threads) if contract.attention else None
        outputs = [spec.name for spec in contract.outputs]
        _check_names(folder / PLAIN_GRAPH, self._plain, contract, outputs)
        if self._tapped:
            tapped_outputs = [*outputs, *(spec.output for spec in contract.attention)]
            _check_names(folder / TAPPED_GRAPH, self._tapped, contract, tapped_outputs)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], attentions: Sequence[str]) -> dict[str, Array]:
        """Compute one batch.

        Args:
            inputs: Every input of the contract, by name; all with the same number of rows.
            outputs: Names of the ordinary outputs to fetch.
            attentions: Names of the attention outputs to fetch; none means the plain graph runs.

        Returns:
            The fetched arrays by name. A graph with nothing to fetch is not run.
        """
        names = [*outputs, *attentions]
        session = self._tapped if attentions and self._tapped else self._plain
        return dict(zip(names, session.run(names, dict(inputs)), strict=True)) if names else {}

    def warm_up(self) -> None:
        """Run each graph once on the smallest batch, so that the first caller does not pay for it."""
        inputs = {spec.name: _smallest(spec) for spec in self._contract.inputs}
        outputs = [spec.name for spec in self._contract.outputs]
        self.run(inputs, outputs, [])
        self.run(inputs, outputs, [spec.output for spec in self._contract.attention[-1:]])


def _load(path: Path, device: Device, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _WARNINGS_AND_WORSE
    # Spinning threads take the cores that the event loop and the callers need.
    options.add_session_config_entry(_INTRA_OP_SPINNING, "0")
    options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(device.providers))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise StartError(f"{path}: ONNX Runtime cannot load it: {str(error).strip().splitlines()[0]}") from error
    check_placement(device, session.get_providers(), session.get_provider_graph_assignment_info())
    return session


def _check_names(path: Path, session: onnxruntime.InferenceSession, contract: Contract, outputs: list[str]) -> None:
    found = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
    expected = {*(spec.name for spec in contract.inputs), *outputs}
    if found != expected:
        raise StartError(f"{path}: has the inputs and outputs {sorted(found)}; its contract says {sorted(expected)}")


def _smallest(spec: TensorContract) -> Array:
    """Make an input with every symbolic axis 1, holding the largest allowed value for masks, else zeros."""
    shape = [axis if isinstance(axis, int) else 1 for axis in spec.axes]
    return np.full(shape, 1 if spec.mask else 0, dtype=spec.dtype)
