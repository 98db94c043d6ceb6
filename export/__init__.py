"""From a network to an artifact: sources, graph, tap, verify, publish; `python -m export --help`."""
