"""Proves on a GPU what regard does there: `make gpu-check`, or `python -m bench.gpu`."""
