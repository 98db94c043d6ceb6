"""ONNX Runtime: devices, sessions, and the operations on what they give."""
