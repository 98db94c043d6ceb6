"""From a network to an artifact: sources, graph, tap, verify, publish; `python -m export --help`."""

import server as server  # first of all: it keeps ONNX Runtime from reporting to its makers
