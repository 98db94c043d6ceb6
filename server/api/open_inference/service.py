"""The service inference.GRPCInferenceService."""

from server.api.open_inference.infer import Inference
from server.api.open_inference.management import Management
from server.api.open_inference.memory_management import MemoryManagement
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer


class InferenceService(Inference, Management, MemoryManagement, GRPCInferenceServiceServicer):
    """Standard inference clients."""
