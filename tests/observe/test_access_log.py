"""The writer of log lines: off the loop, bounded, reopened, and never in the way."""

import os
import select
import subprocess
import sys
import threading
import time

import pytest

from gateway.observe.access_log import PIPE_ATOMIC, AccessLog, LineWriter


@pytest.fixture
def writer_of():
    writers = []

    def make(path, **options):
        writers.append(AccessLog(str(path), **options))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close(0.2)


@pytest.fixture
def fifo(tmp_path):
    """A FIFO whose reader reads only when asked: (path, descriptor of the reading end)."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def read_until(fd, n, deadline=10.0):
    end = time.monotonic() + deadline
    got = b""
    while len(got) < n and time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            got += os.read(fd, 1 << 16)
    return got


def test_batches_reach_the_file_in_order_and_are_appended(tmp_path, writer_of):
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    writer = writer_of(path)
    for i in range(100):
        writer.write(b"line %d\n" % i)
    writer.write(b"")
    assert writer.flush(10)
    assert path.read_bytes() == b"before\n" + b"".join(b"line %d\n" % i for i in range(100))
    assert writer.dropped == 0


def test_close_writes_what_is_queued_and_ends_the_thread(tmp_path, writer_of):
    writer = writer_of(tmp_path / "access.log")
    name = writer._thread.name
    for _ in range(1000):
        writer.write(b"x" * 99 + b"\n")
    writer.close(10)
    assert (tmp_path / "access.log").stat().st_size == 100_000
    assert name not in [thread.name for thread in threading.enumerate()]
    assert str(tmp_path / "access.log") not in [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    writer.write(b"late\n")
    writer.close()
    assert writer.dropped == 1


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        AccessLog(str(tmp_path / "missing" / "access.log"))


def test_a_fifo_that_nobody_reads_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="fifo"):
        AccessLog(str(tmp_path / "fifo"))


def test_a_file_that_was_moved_away_is_opened_again(tmp_path, writer_of):
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    writer = writer_of(path)
    writer.write(b"old 1\n")
    assert writer.flush(10)
    path.rename(moved)
    writer.write(b"old 2\n")
    writer.reopen()
    writer.write(b"new\n")
    assert writer.flush(10)
    assert moved.read_bytes() == b"old 1\nold 2\n"
    assert path.read_bytes() == b"new\n"


def test_a_file_that_cannot_be_reopened_is_written_to_still(tmp_path, writer_of, caplog):
    folder = tmp_path / "logs"
    folder.mkdir()
    writer = writer_of(folder / "access.log")
    folder.rename(tmp_path / "gone")
    writer.reopen()
    writer.write(b"still\n")
    assert writer.flush(10)
    assert (tmp_path / "gone" / "access.log").read_bytes() == b"still\n"
    assert "cannot reopen" in caplog.text


# ---- a reader that does not read ----


def test_a_blocked_pipe_costs_the_caller_nothing_and_what_does_not_fit_is_counted(fifo, writer_of):
    path, reader = fifo
    writer = writer_of(path, max_queued=1 << 20)
    line = b"x" * 999 + b"\n"
    for _ in range(3000):
        writer.write(line * 10)  # a write to the full pipe would never come back
    dropped = writer.dropped
    # One MiB was queued and what the pipe holds was written; a batch is kept or dropped as a whole.
    assert 28_000 < dropped < 29_000 and dropped % 10 == 0
    kept = 30_000 - dropped
    assert read_until(reader, kept * len(line)) == line * kept
    # The writer goes on as if nothing had been.
    writer.write(b"after\n")
    assert read_until(reader, 6) == b"after\n"
    assert writer.dropped == dropped


def test_close_does_not_wait_for_a_blocked_pipe(fifo, writer_of):
    path, _ = fifo
    writer = writer_of(path)
    writer.write(b"x" * 999_999 + b"\n")
    start = time.monotonic()
    writer.close(0.2)
    assert time.monotonic() - start < 5


def test_a_reader_that_is_gone_costs_records_and_nothing_else(tmp_path, writer_of, caplog):
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = writer_of(tmp_path / "fifo")
    os.close(reader)
    writer.write(b"a\nb\n")
    writer.write(b"c\n")
    assert writer.flush(10)
    assert writer.dropped == 3
    # said once, not for every batch; writers of other tests may have something to say as well
    assert len([record for record in caplog.records if str(tmp_path) in record.getMessage()]) == 1


def test_lines_of_workers_that_share_a_pipe_are_never_mixed(fifo):
    path, reader = fifo
    writers = [LineWriter(str(path)) for _ in range(4)]
    lines = [bytes([97 + i]) * (200 + 311 * i) + b"\n" for i in range(4)]
    for _ in range(100):
        for writer, line in zip(writers, lines, strict=True):
            writer.write(line * 12)
    total = 100 * 12 * sum(map(len, lines))
    got = read_until(reader, total, deadline=30)
    for writer in writers:
        writer.close()
    assert len(got) == total
    assert set(got.splitlines(keepends=True)) == set(lines)


def test_a_line_longer_than_a_pipe_takes_at_once_is_written_all_the_same(fifo, writer_of):
    path, reader = fifo
    writer = writer_of(path)
    batch = b"a\n" + b"x" * (3 * PIPE_ATOMIC) + b"\nb\n"
    writer.write(batch)
    assert read_until(reader, len(batch)) == batch


# ---- errors ----


def test_a_full_disk_loses_records_counts_them_and_never_glues_lines(tmp_path, writer_of, monkeypatch):
    path = tmp_path / "access.log"
    writer = writer_of(path)
    room = [5]
    real = os.write

    def write(fd, piece):
        if fd != writer._fd:
            return real(fd, piece)
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        n = real(fd, bytes(piece)[: room[0]])
        room[0] -= n
        return n

    monkeypatch.setattr("gateway.observe.access_log.os.write", write)
    writer.write(b"1st\n2nd\n3rd\n")  # five bytes of it fit
    writer.write(b"4th\n")
    assert writer.flush(10)
    assert writer.dropped == 3
    room[0] = 1 << 20
    writer.write(b"5th\n")
    assert writer.flush(10)
    assert path.read_bytes() == b"1st\n2\n5th\n"
    assert writer.dropped == 3


def test_stdout_is_written_to_and_left_open():
    program = (
        "from gateway.observe.access_log import AccessLog\n"
        "import os\n"
        "log = AccessLog('stdout')\n"
        "log.write(b'one\\n')\n"
        "log.reopen()\n"
        "log.close()\n"
        "os.write(1, b'two\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"one\ntwo\n" and done.stderr == b""


def test_a_process_ends_although_its_stdout_is_blocked():
    program = (
        "from gateway.observe.access_log import AccessLog\n"
        "log = AccessLog('stdout')\n"
        "log.write((b'x' * 99 + b'\\n') * 10000)\n"
        "log.close(0.1)\n"
    )
    reader, pipe = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=pipe, timeout=60, check=False)
    finally:
        os.close(pipe)
        os.close(reader)
    assert done.returncode == 0
