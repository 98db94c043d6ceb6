"""The networks need torch, which a server installation does not have: without it this folder is left out."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]
