"""A server whose runs take three times as long, as on a slower machine: `python -m bench.slowed FLAGS`.

It waits beside each run for twice as long as the run took, so it takes no CPU from those that it is compared with.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from server import __main__
from server.engine import session

_TIMES = 3
_run = session.Graph.run


def _run_slowly(graph: session.Graph, inputs: Mapping[str, Any], names: Sequence[str], **how: Any) -> Mapping[str, Any]:
    began = time.perf_counter()
    found = _run(graph, inputs, names, **how)
    time.sleep((_TIMES - 1) * (time.perf_counter() - began))
    return found


if __name__ == "__main__":
    session.Graph.run = _run_slowly  # type: ignore[assignment, method-assign]
    sys.exit(__main__.main())
