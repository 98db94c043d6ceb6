"""What ONNX Runtime's own CUDA provider does with regard's graphs: over stubs, in which kernels do nothing.

Where nodes go, what is refused, and when inputs are copied; no number that is computed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifact.contract import TAPPED_GRAPH
from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS
from tests.server.engine.cuda_stub import build_stubs, reasons_against

pytestmark = pytest.mark.skipif(bool(reasons_against()), reason=reasons_against())
_ROOT = Path(__file__).parents[3]
_G2P, _TEXT = EMBEDDED_MODELS / "g2p" / "1", GOLDEN_MODELS / "tiny-text" / "1"

_LOAD = """
import json, logging, sys
from pathlib import Path
from server.engine.device import Instances, choose_device
from server.engine.execution import Execution
from server.errors import StartError
from server.repository.limits import Usage
from server.repository.loading import load_model
from server.repository.settings import ModelSettings

logging.basicConfig(stream=sys.stderr, level=logging.INFO)
device = choose_device("cuda")
wanted = Execution(sys.argv[2], tensorrt_cache=Path(sys.argv[3])) if sys.argv[2:] else Execution()
try:
    model = load_model(Path(sys.argv[1]), (device,), Instances(1, 1), Usage(ModelSettings()), wanted)
except StartError as error:
    print(json.dumps({"refused": str(error)}))
else:
    print(json.dumps({"device": device.name, "tapped": model.engine.tapped is not None}))
"""
_REBIND = """
import json
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from server.engine.decoder import BoundStep

info = helper.make_tensor_value_info
given, made = (info(name, TensorProto.FLOAT, [3]) for name in ("x", "y"))
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", [given], [made])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
session = onnxruntime.InferenceSession(model, providers=[("CUDAExecutionProvider", {"device_id": 0})])
found = {}
for in_place in (True, False):
    x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
    step = BoundStep(session, {"x": x}, {"y": y}, in_place=in_place)
    step.run()
    x[:] = 7
    step.run()
    found[str(in_place)] = y.tolist()
print(json.dumps(found))
"""
_CAPTURE = """
import ctypes, json, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from artifact.contract import read_contract
from server.engine.device import Instances, choose_device
from server.engine.engine import Engine
from server.engine.examples import example
from server.engine.execution import Execution, _Choice

_Choice._check = lambda *_: None  # kernels do nothing, so there is nothing to compare
folder = Path(sys.argv[1])
contract = read_contract(folder / "contract.json")
device, wanted = choose_device("cuda"), Execution("cuda_graphs", graph_rows=(1, 4), graph_tokens=(8, 16))
engine = Engine(folder, contract, (device,), Instances(1, 1), execution=wanted)
engine.warm_up()
libraries = [ctypes.CDLL(path) for path in Path(os.environ["LD_LIBRARY_PATH"]).glob("lib*.so*")]

def seen():  # whichever of them the provider calls
    return [sum(one.stub_captures() for one in libraries), sum(one.stub_replays() for one in libraries)]

found = {"loaded": seen()}
names = [spec.name for spec in contract.outputs]
for rows, length in ((1, 3), (4, 16), (5, 3)):
    with ThreadPoolExecutor(1) as thread:  # another each time
        answer = thread.submit(engine.plain.run, example(contract, rows, length), names).result()
    found["shapes"] = [array.shape for array in answer.values()]
    found[f"{rows}x{length}"] = seen()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libraries."""
    return build_stubs(tmp_path_factory.mktemp("cuda"))


def run(stubs: Path, program: str, *arguments: str) -> tuple[Any, str]:
    """Run a program with the stubs; returns what it prints, as JSON, and what it logs."""
    env = os.environ | {
        "LD_LIBRARY_PATH": str(stubs),
        "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "client")]),
    }
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("folder", [_G2P, _TEXT], ids=["an encoder-decoder", "an encoder"])
def test_an_artifact_is_served_on_cuda_with_the_lowered_form_of_its_attention(stubs: Path, folder: Path) -> None:
    """Loaded, every node placed, warmed up through bound buffers; the fused form is refused at its first run."""
    found, logged = run(stubs, _LOAD, str(folder))
    assert found == {"device": "CUDA:0", "tapped": True}
    assert f"{folder / TAPPED_GRAPH}: loads, but cannot be run: " in logged
    assert "Only kNone and kQK output modes are supported" in logged


def test_cuda_copies_an_input_when_it_is_bound(stubs: Path) -> None:
    """So a step whose inputs have changed has to bind them anew."""
    found, _ = run(stubs, _REBIND)
    assert found == {"True": [1.0, 1.0, 1.0], "False": [7.0, 7.0, 7.0]}


@pytest.mark.parametrize("folder", [_G2P, _TEXT], ids=["an encoder-decoder", "an encoder"])
def test_every_shape_is_captured_once_and_then_replayed(stubs: Path, folder: Path) -> None:
    """At the load; what is larger than all shapes runs as it would without."""
    found, _ = run(stubs, _CAPTURE, str(folder))
    captures, replays = found["loaded"]
    assert captures == 4  # of the load, by the thread that replays since
    assert found["1x3"] == [captures, replays + 1]
    assert found["4x16"] == found["5x3"] == [captures, replays + 2]
    assert all(shape[0] == 5 for shape in found["shapes"])


def test_without_its_libraries_tensorrt_is_done_without_or_refused(stubs: Path, tmp_path: Path) -> None:
    """By auto, which says why; and by whoever asks for it."""
    _, logged = run(stubs, _LOAD, str(_TEXT), "auto", str(tmp_path))
    assert "tensorrt is not to be had: ONNX Runtime cannot load it: " in logged
    assert " is taken, runs of 1x16 and 8x64 take bound " in logged
    found, _ = run(stubs, _LOAD, str(_TEXT), "tensorrt", str(tmp_path))
    assert "model.onnx: execution: tensorrt: ONNX Runtime cannot load it: " in found["refused"]
