"""Follows changes of the models while the server runs, in a folder or in a store."""

import asyncio
import logging
from pathlib import Path

from watchfiles import awatch

from server.errors import StartError
from server.repository.lifecycle import Repository
from server.repository.store.remote_models import RemoteModels

_log = logging.getLogger(__name__)

# A version being copied is looked at when nothing has changed for so long, or again and again while it has.
_QUIET_MS, _LONGEST_MS = 500, 5000
_FIRST_LOOK_MS = 200


async def watch(folder: Path, repository: Repository) -> None:
    """Load what was changed and unload what was removed, until cancelled."""
    root, seen_all = await asyncio.to_thread(folder.resolve), False
    follow = awatch(root, step=_QUIET_MS, debounce=_LONGEST_MS, rust_timeout=_FIRST_LOOK_MS, yield_on_timeout=True)
    async for changes in follow:
        names = {Path(path).relative_to(root).parts[0] for _, path in changes if Path(path) != root}
        if not seen_all or await repository.is_of_one():  # what was changed before anything was watched
            names, seen_all = names | {entry.name for entry in await repository.index()}, True
        for name in sorted(names):
            if not name.startswith("."):
                await repository.sync(name)


async def poll(models: RemoteModels, repository: Repository, seconds: float) -> None:
    """Likewise of a store, which tells of no change: list it again and again, so many seconds apart.

    What was listed before is taken to be loaded: to look at it once more would read and hash all of it.
    """
    seen = models.stamps()
    while True:
        try:
            await repository.refresh()
        except StartError as error:
            _log.warning("--watch: %s", error)
        else:
            before, seen = seen, models.stamps()
            changed = {name for name in {*before, *seen} if before.get(name) != seen.get(name)}
            for name in sorted(changed | models.unfinished()):
                await repository.sync(name)
        await asyncio.sleep(seconds)
