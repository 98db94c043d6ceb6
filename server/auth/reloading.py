"""Something read from files, and read again when they have changed."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)
_Stamp = tuple[tuple[int, int], ...]

Content = TypeVar("Content")


class Reloading(Generic[Content]):
    """What some files hold; a change that cannot be used leaves the last good content in place."""

    def __init__(self, what: str, files: Sequence[Path], read: Callable[[], Content]) -> None:
        """Read the files.

        Args:
            what: For the log.
            files: Which are looked at.
            read: Reads all of them; its OSErrors and ValueErrors hold no secret.

        Raises:
            OSError: As `read` raises it, here only.
            ValueError: Likewise.
        """
        self._what, self._files, self._read = what, files, read
        self._is_gone = False
        self._stamp = self._look()
        self.content = read()

    def refresh(self) -> bool:
        """Read the files again if they have changed; returns whether the content is new. Looks at the disk."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.content = self._read()
        except (OSError, ValueError) as error:
            _log.error("changed %s files cannot be used, the last ones stay: %s", self._what, error)
            return False
        _log.info("%s: read again", self._what)
        return True

    def _look(self) -> _Stamp:
        """When the files were changed; what is absent is as good as unchanged until it is there again."""
        try:
            stamp = tuple((status.st_mtime_ns, status.st_ino) for status in map(Path.stat, self._files))
        except OSError as error:
            if not self._is_gone:
                _log.error("%s files cannot be looked at, the last content stays: %s", self._what, error)
            self._is_gone = True
            return getattr(self, "_stamp", ())
        self._is_gone = False
        return stamp
