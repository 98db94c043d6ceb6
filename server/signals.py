"""What signals do to a server, whatever carries its calls."""

import logging
import signal

STOPPING = (signal.SIGTERM, signal.SIGINT)
# Windows has none of them.
IGNORED = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
_log = logging.getLogger(__name__)


def tell_ignored(number: int) -> None:
    """Log that a signal changes nothing."""
    _log.info("%s changes nothing: files are read when they change", signal.Signals(number).name)
