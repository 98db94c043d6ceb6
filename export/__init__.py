"""From a network to an artifact: graph, attention taps, verification, publication."""

import os

# ONNX Runtime reports to its makers unless this is set before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
