"""A change of a configuration path is told once it has settled."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import watchfiles

from gateway.sources.certificates import Mark, file_mark
from gateway.sources.watch import fingerprint, watch

DEADLINE = 20.0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def watched(path: Path) -> AsyncGenerator[None, None]:
    return watch(path, hold_off=0.02, look_interval=0.2)


def replace(path: Path, text: str) -> None:
    new = path.with_name(".new")
    new.write_text(text)
    os.rename(new, path)


def swap(base: Path, version: str, text: str) -> None:
    """A ConfigMap's update, as the kubelet does it."""
    (base / version).mkdir()
    (base / version / "a.yaml").write_text(text)
    os.symlink(version, base / "..data_tmp")
    os.rename(base / "..data_tmp", base / "..data")


async def told_after(change: Callable[[], object], path: Path) -> None:
    changes = watched(path)
    change()
    await anext(changes)
    await changes.aclose()


@pytest.mark.parametrize("whole", [True, False], ids=["directory", "file"])
def test_every_way_of_changing_a_file_is_noticed(tmp_path: Path, whole: bool) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("1")
    path = tmp_path if whole else file

    async def scenario() -> None:
        await told_after(lambda: file.write_text("22"), path)
        await told_after(lambda: replace(file, "22"), path)
        await told_after(file.unlink, path)
        await told_after(lambda: file.write_text("1"), path)

    run(scenario)


def test_files_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        await told_after(lambda: (tmp_path / "a.yaml").write_text("1"), tmp_path)
        await told_after(lambda: (tmp_path / "b.json").write_text("1"), tmp_path)
        await told_after((tmp_path / "a.yaml").unlink, tmp_path)

    run(scenario)


@pytest.mark.parametrize("whole", [True, False], ids=["directory", "file"])
def test_the_swap_of_a_mounted_config_map_is_noticed(tmp_path: Path, whole: bool) -> None:
    swap(tmp_path, "..v1", "1")
    os.symlink("..data/a.yaml", tmp_path / "a.yaml")

    async def scenario() -> None:
        await told_after(lambda: swap(tmp_path, "..v2", "2"), tmp_path if whole else tmp_path / "a.yaml")

    run(scenario)


def test_one_iterator_tells_every_change(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("0")

    async def scenario() -> None:
        changes = watched(file)
        for number in range(3):
            replace(file, str(number) * 9)
            await anext(changes)
        await changes.aclose()

    run(scenario)


def test_a_change_between_the_call_and_the_first_wait_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("1")
    changes = watched(file)
    replace(file, "2")

    async def scenario() -> None:
        await anext(changes)
        await changes.aclose()

    run(scenario)


def test_what_is_no_configuration_is_not_told(tmp_path: Path) -> None:
    """The other changes come first; what is told then is the change that counts."""
    (tmp_path / "a.yaml").write_text("1")

    async def scenario() -> None:
        changes = watched(tmp_path)
        wait = asyncio.ensure_future(anext(changes))
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / ".a.yaml.swp").write_text("x")
        done, _ = await asyncio.wait([wait], timeout=0.5)
        assert not done
        replace(tmp_path / "a.yaml", "2")
        await wait
        await changes.aclose()

    run(scenario)


def test_a_burst_of_writes_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("")

    async def scenario() -> None:
        changes = watch(tmp_path, hold_off=0.2, look_interval=0.2)
        wait = asyncio.ensure_future(anext(changes))
        for number in range(50):
            replace(file, str(number))
            await asyncio.sleep(0)
        await wait
        again = asyncio.ensure_future(anext(changes))
        done, _ = await asyncio.wait([again], timeout=0.6)
        assert not done
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        await changes.aclose()

    run(scenario)


def test_a_directory_that_is_replaced_is_noticed_and_watched_again(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.mkdir()
    (path / "a.yaml").write_text("1")

    async def scenario() -> None:
        changes = watched(path)
        os.rename(path, tmp_path / "old")
        await anext(changes)
        path.mkdir()
        (path / "a.yaml").write_text("2")
        await anext(changes)
        replace(path / "a.yaml", "3")
        await anext(changes)
        await changes.aclose()

    run(scenario)


@pytest.mark.parametrize("failure", [OSError("no inotify"), RuntimeError("table is full")])
def test_without_the_kernel_s_notices_the_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def awatch(*paths: Path, **options: object) -> AsyncGenerator[set[object], None]:
        raise failure
        yield set()

    monkeypatch.setattr(watchfiles, "awatch", awatch)
    file = tmp_path / "a.yaml"
    file.write_text("1")

    async def scenario() -> None:
        changes = watched(tmp_path)
        for number in range(2):
            replace(file, f"x{number}")
            await anext(changes)
        await changes.aclose()

    run(scenario)


def test_a_waiting_watcher_ends_when_its_task_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")

    async def scenario() -> None:
        wait = asyncio.ensure_future(anext(watched(tmp_path)))
        done, _ = await asyncio.wait([wait], timeout=0.3)
        assert not done
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait

    run(scenario)


def test_a_fingerprint_never_raises(tmp_path: Path) -> None:
    missing = fingerprint(tmp_path / "none")
    assert missing == fingerprint(tmp_path / "none")
    os.symlink("loop.yaml", tmp_path / "loop.yaml")
    assert fingerprint(tmp_path) == fingerprint(tmp_path)
    os.symlink("nowhere", tmp_path / "..data")
    assert fingerprint(tmp_path)


def test_a_change_of_another_named_file_is_noticed_and_told_once(tmp_path: Path) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "tls" / "a.crt"
    file.write_text("1")
    other.parent.mkdir()
    seen: dict[Path, Mark] = {other: file_mark(other)}

    async def scenario() -> None:
        changes = watch(file, more=lambda: seen, hold_off=0.02, look_interval=0.05)
        for text in ("one", "another"):
            replace(other, text)
            await anext(changes)
        # The load that follows is what counts from then on; until one comes, what was told is no news.
        quiet = asyncio.ensure_future(anext(changes))
        done, _ = await asyncio.wait([quiet], timeout=0.3)
        assert not done
        replace(other, "third")
        seen[other] = file_mark(other)
        done, _ = await asyncio.wait([quiet], timeout=0.3)
        assert not done, "a state that a load has seen is no news"
        other.unlink()
        await quiet
        await changes.aclose()

    run(scenario)


def test_a_file_that_is_named_only_now_is_watched_from_the_state_in_which_it_was_read(tmp_path: Path) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.crt"
    file.write_text("1")
    other.write_text("old")
    seen: dict[Path, Mark] = {}

    async def scenario() -> None:
        changes = watch(file, more=lambda: seen, hold_off=0.02, look_interval=0.05)
        replace(file, "names b.crt")
        await anext(changes)
        seen[other] = file_mark(other)
        replace(other, "new")
        await anext(changes)
        await changes.aclose()

    run(scenario)
