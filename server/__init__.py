"""The server. A request's way: service, pipeline, (text | images | tensors), scheduler, engine, attention, and back."""

import os

# ONNX Runtime reports to its makers unless this is set before it is first imported. A server reports to its operator.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
