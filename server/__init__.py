"""The server. A request's way: transport, api, inference, scheduling, engine, and back."""

import os

# ONNX Runtime reports to its makers unless this is set before it is first imported. A server reports to its operator.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Processes that are started for a trial are other programs: gRPC need not prepare for them, nor say so in the log.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
