"""Python in processes that this one starts."""

import os
import sys


def environment() -> dict[str, str]:
    """Return this process's variables, with which Python finds in another what it finds in this one."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
