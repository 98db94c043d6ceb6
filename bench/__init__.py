"""Measures the server against ONNX Runtime alone; `python -m bench --help`."""
