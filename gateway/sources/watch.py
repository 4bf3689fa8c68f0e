"""When a configuration path changes: an edit in place, a file replaced by rename, a ConfigMap's `..data` swap.

The kernel's notices only say "look again". What decides is a fingerprint of the files, taken again after each notice and once a
second without one; so a notice that is lost or never comes (network file systems, a full inotify table) costs a second at most.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import watchfiles

from gateway.sources.certificates import Mark, file_mark
from gateway.sources.files import config_files

Fingerprint = tuple[tuple[str, ...], ...]

LOOK_INTERVAL = 1.0
"""Seconds between two looks when the kernel says nothing."""
HOLD_OFF = 0.1
"""Seconds for which the files must keep still before a change counts as settled."""
LONGEST_HOLD_OFF = 2.0
"""After so many seconds of restless files the change is told anyway."""


def watch(
    path: Path,
    *,
    more: Callable[[], Mapping[Path, Mark]] = dict,
    hold_off: float = HOLD_OFF,
    look_interval: float = LOOK_INTERVAL,
) -> AsyncGenerator[None, None]:
    """Yields once for each settled change of the path since this call; call it before the first load, and nothing is missed.

    more: the other files that the configuration names, with the state in which the last load saw them. A path that is missing, or
    vanishes, is watched until it is there. Close the iterator (aclose) or cancel its task to end it.
    """
    return _changes(_Sight(path, more), hold_off, look_interval)


def fingerprint(path: Path) -> Fingerprint:
    """What identifies the present state of the path's files, without reading them. Never raises."""
    try:
        files = config_files(path) if path.is_dir() else [(path, path)]
    except OSError as error:
        return ((str(path), type(error).__name__),)
    return tuple(file_mark(shown, real) for shown, real in files)


class _Sight:
    """What is watched, in the state that was told last."""

    def __init__(self, path: Path, more: Callable[[], Mapping[Path, Mark]]) -> None:
        self.path = path
        self._more = more
        self._known = fingerprint(path)
        self._told: dict[Path, Mark] = {}

    def now(self) -> tuple[Fingerprint, dict[Path, Mark]]:
        return fingerprint(self.path), {file: file_mark(file) for file in self._more()}

    def is_changed(self) -> bool:
        seen, marks = self.now()
        if seen != self._known:
            return True
        # A state that a load has seen is no news, nor is one that was told when the load could not get as far as this file.
        loaded = self._more()
        return any(mark not in (loaded.get(file), self._told.get(file)) for file, mark in marks.items())

    def tell(self, state: tuple[Fingerprint, dict[Path, Mark]]) -> None:
        self._known, self._told = state

    def directories(self) -> list[Path]:
        """The directories in which a change shows: those of the names and of what they lead to."""
        wanted = {Path(os.path.realpath(name)).parent for name in (self.path, *self._more())}
        wanted |= {self.path.parent, *(file.parent for file in self._more())}
        if self.path.is_dir():
            wanted.add(self.path)
            with contextlib.suppress(OSError):
                wanted.update(Path(os.path.realpath(real)).parent for _, real in config_files(self.path))
        existing = sorted(directory for directory in wanted if os.path.isdir(directory))
        if not existing:
            raise FileNotFoundError(self.path)
        return existing


async def _changes(sight: _Sight, hold_off: float, look_interval: float) -> AsyncGenerator[None, None]:
    while True:
        async with contextlib.aclosing(_looks(sight, look_interval)) as looks:
            async for _ in looks:
                if sight.is_changed():
                    break
        sight.tell(await _settled(sight, hold_off))
        yield


async def _settled(sight: _Sight, hold_off: float) -> tuple[Fingerprint, dict[Path, Mark]]:
    seen = sight.now()
    for _ in range(max(1, int(LONGEST_HOLD_OFF / hold_off)) if hold_off > 0 else 0):
        await asyncio.sleep(hold_off)
        before, seen = seen, sight.now()
        if seen == before:
            break
    return seen


async def _looks(sight: _Sight, look_interval: float) -> AsyncGenerator[None, None]:
    """Yields whenever it is worth to look: at once, after a notice of the kernel, and at least once in an interval."""
    yield
    stop = asyncio.Event()
    try:
        async with contextlib.aclosing(
            watchfiles.awatch(
                *sight.directories(),
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
