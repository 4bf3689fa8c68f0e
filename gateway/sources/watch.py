"""When a configuration path changes: an edit in place, a file replaced by rename, a ConfigMap's `..data` swap.

The kernel's notices only say "look again". What decides is a fingerprint of the files, taken again after each notice and once a
second without one; so a notice that is lost or never comes (network file systems, a full inotify table) costs a second at most.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import watchfiles

from gateway.sources.files import config_files

Fingerprint = tuple[tuple[str, ...], ...]

LOOK_INTERVAL = 1.0
"""Seconds between two looks when the kernel says nothing."""
HOLD_OFF = 0.1
"""Seconds for which the files must keep still before a change counts as settled."""
LONGEST_HOLD_OFF = 2.0
"""After so many seconds of restless files the change is told anyway."""


def watch(path: Path, *, hold_off: float = HOLD_OFF, look_interval: float = LOOK_INTERVAL) -> AsyncGenerator[None, None]:
    """Yields once for each settled change of the path since this call; call it before the first load, and nothing is missed.

    A path that is missing, or vanishes, is watched until it is there. Close the iterator (aclose) or cancel its task to end it.
    """
    return _changes(path, fingerprint(path), hold_off, look_interval)


def fingerprint(path: Path) -> Fingerprint:
    """What identifies the present state of the path's files, without reading them. Never raises."""
    try:
        files = config_files(path) if path.is_dir() else [(path, path)]
    except OSError as error:
        return ((str(path), type(error).__name__),)
    return tuple(_file_mark(shown, real) for shown, real in files)


def _file_mark(shown: Path, real: Path) -> tuple[str, ...]:
    try:
        target = os.path.realpath(real)
        status = os.stat(target)
    except OSError as error:
        return (str(shown), type(error).__name__)
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (str(shown), target, *map(str, numbers))


async def _changes(path: Path, known: Fingerprint, hold_off: float, look_interval: float) -> AsyncGenerator[None, None]:
    while True:
        async with contextlib.aclosing(_looks(path, look_interval)) as looks:
            async for _ in looks:
                seen = fingerprint(path)
                if seen != known:
                    break
        known = await _settled(path, hold_off)
        yield


async def _settled(path: Path, hold_off: float) -> Fingerprint:
    seen = fingerprint(path)
    for _ in range(max(1, int(LONGEST_HOLD_OFF / hold_off)) if hold_off > 0 else 0):
        await asyncio.sleep(hold_off)
        before, seen = seen, fingerprint(path)
        if seen == before:
            break
    return seen


async def _looks(path: Path, look_interval: float) -> AsyncGenerator[None, None]:
    """Yields whenever it is worth to look: at once, after a notice of the kernel, and at least once in an interval."""
    yield
    stop = asyncio.Event()
    try:
        async with contextlib.aclosing(
            watchfiles.awatch(
                *_watched(path),
                watch_filter=None,
                debounce=50,
                step=10,
                stop_event=stop,
                rust_timeout=max(1, int(look_interval * 1000)),
                yield_on_timeout=True,
                recursive=False,
            )
        ) as notices:
            async for _ in notices:
                yield
    except (OSError, RuntimeError, ExceptionGroup):
        # No inotify here, or its table is full: the looks alone have to do.
        pass
    finally:
        stop.set()
    while True:
        await asyncio.sleep(look_interval)
        yield


def _watched(path: Path) -> list[Path]:
    """The directories in which a change of the path shows: those of its names and of what they lead to."""
    wanted = {path.parent, Path(os.path.realpath(path)).parent}
    if path.is_dir():
        wanted.add(path)
        with contextlib.suppress(OSError):
            wanted.update(Path(os.path.realpath(real)).parent for _, real in config_files(path))
    existing = sorted(directory for directory in wanted if os.path.isdir(directory))
    if not existing:
        raise FileNotFoundError(path)
    return existing
