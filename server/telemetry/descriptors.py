"""File descriptors: raised to what connections need, and missed aloud where there are none left.

gRPC says nothing to Python of a connection that it could not take for want of one.
"""

import asyncio
import errno
import logging
import os
import sys
from collections.abc import Callable

if sys.platform != "win32":
    import resource

_log = logging.getLogger(__name__)
_OTHERS = 128  # beside connections: models, threads' own, the metrics port
_LOOK_SECONDS = 1.0
_LOOKS_A_LINE = 60


def raise_limit(connections: int) -> None:
    """Raise this process's limit to what so many connections need; says so where the system allows fewer."""
    if sys.platform == "win32":
        return
    wanted = connections + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        _log.warning(
            "descriptors: at most %d (ulimit -n); %d connections (--max-connections) need %d: further ones will wait",
            most, connections, wanted,
        )  # fmt: skip


async def watch_descriptors(missed: Callable[[], None]) -> None:
    """Look each second whether a descriptor can be had, until cancelled.

    Args:
        missed: Called at each look that finds none.
    """
    looks = 0
    while True:
        if _is_one_left():
            looks = 0
        else:
            missed()
            if looks % _LOOKS_A_LINE == 0:
                _log.error("descriptors: none is left (ulimit -n): new connections wait, and files cannot be opened")
            looks += 1
        await asyncio.sleep(_LOOK_SECONDS)


def _is_one_left() -> bool:
    try:
        os.close(os.dup(2))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)
    return True
