"""A real server, asked through the Open Inference Protocol: models with a contract, and without one."""

import shutil
from pathlib import Path

import pytest

from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.config import EMBEDDED_MODELS
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS, GOLDEN_TOWERS
from tests.server.conftest import Running


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models there are."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(BARE_ONNX_MODELS, folder, dirs_exist_ok=True)
    shutil.copytree(GOLDEN_MODELS, folder, dirs_exist_ok=True)
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    (folder / "tiny-clip").symlink_to(GOLDEN_TOWERS / "tiny-clip")
    return folder


@pytest.fixture
def stub(running: Running) -> GRPCInferenceServiceStub:
    """It, asked through the protocol."""
    return GRPCInferenceServiceStub(running.channel)
