"""HTTP/2 and long times, on a clock that the test skips: readers that stall or drip, silent origins, connections of an age."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data_plane import DataPlane, origin_config, skipping_clock
from faulty import Origin, once
from h2frames import (
    ACK,
    CANCEL,
    DATA,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Frame,
    Speaker,
    data,
    frame,
    settings,
    update,
)

PATIENCE = 20.0
BIG = b"x" * (1 << 20)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return skipping_clock(tmp_path_factory.mktemp("clock"))


class Talker:
    """One end of a connection, frame by frame. `seen` has everything that came."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket, self.speaker = sock, Speaker()
        self.held, self.seen, self.pings = b"", list[Frame](), 0
        sock.settimeout(PATIENCE)

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def more(self) -> bool:
        """Receives once; False at the end."""
        got = self.socket.recv(1 << 16)
        self.held += got
        while len(self.held) >= 9 and len(self.held) >= (end := 9 + int.from_bytes(self.held[:3], "big")):
            head = self.held[:9]
            self.seen.append(Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), self.held[9:end]))
            self.held = self.held[end:]
        return bool(got)

    def wait(self, wanted: Callable[[Frame], bool]) -> Frame:
        while not (found := [each for each in self.seen if wanted(each)]):
            assert self.more(), f"ended after {self.seen}"
        return found[0]

    def ping(self) -> None:
        """Comes back once everything that was sent before has been seen to."""
        self.pings += 1
        number = self.pings.to_bytes(8, "big")
        self.send(frame(PING, payload=number))
        self.wait(lambda each: (each.type, each.flags, each.payload) == (PING, ACK, number))

    def of(self, stream: int, kind: int) -> list[Frame]:
        return [each for each in self.seen if (each.stream, each.type) == (stream, kind)]

    def body(self, stream: int) -> bytes:
        return b"".join(each.payload for each in self.of(stream, DATA))


def client(port: int, *pairs: tuple[int, int]) -> Talker:
    talker = Talker(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
    talker.send(PREFACE, settings(*pairs), frame(SETTINGS, ACK))
    return talker


# ---- readers


@pytest.mark.parametrize("drip", [0, 1, 100])
def test_a_reader_that_stalls_or_drips_is_reset_and_another_stream_goes_on(clock: Path, drip: int) -> None:
    """16 KiB in 30 seconds, or everything (classes D4 and D9): one-byte updates do not count as reading."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG
    with Origin(once(answer)) as origin, DataPlane(origin_config(origin.port), clock=clock) as plane:
        talker = client(plane.port, (4, 0))
        talker.send(talker.speaker.headers(1, GET), talker.speaker.headers(3, GET), update(3, 1 << 21))
        talker.wait(lambda each: (each.stream, each.type) == (3, DATA))
        taken = passed = 0
        while not talker.of(1, RST_STREAM) and passed < 90:
            if drip:
                talker.send(update(1, drip))
            # the other stream reads 4 KiB a second, which is enough
            if len(talker.body(3)) - taken > 4096:
                talker.send(update(0, 4096))
                taken += 4096
            plane.skip(1)
            talker.ping()
            passed += 1
        assert 25 < passed <= 62
        assert talker.of(1, RST_STREAM)[0].number == CANCEL
        assert len(talker.body(1)) <= 62 * drip
        assert not talker.of(3, RST_STREAM) and not [each for each in talker.seen if each.type == GOAWAY]
        assert plane.faults() == {"h2_stall": 1}
        assert plane.record()["flags"] == "DPE" and plane.record()["detail"] == "h2_stall"
        # and the other one arrives whole
        talker.send(update(0, 1 << 21))
        talker.wait(lambda each: each.stream == 3 and each.type == DATA and bool(each.flags & END_STREAM))
        assert talker.body(3) == BIG
        talker.socket.close()


def test_an_idle_connection_says_goaway_and_ends(clock: Path) -> None:
    with Origin(once(b"")) as origin, DataPlane(origin_config(origin.port), clock=clock) as plane:
        talker = client(plane.port)
        talker.ping()
        plane.skip(58)
        talker.ping()
        assert not [each for each in talker.seen if each.type == GOAWAY]
        plane.skip(3)
        assert talker.wait(lambda each: each.type == GOAWAY).number == 0x7FFFFFFF
        assert talker.wait(lambda each: each.type == PING and not each.flags).payload == b"isthmus."
        talker.send(frame(PING, ACK, payload=b"isthmus."))
        while talker.more():
            pass
        assert [each.number for each in talker.seen if each.type == GOAWAY] == [0x7FFFFFFF, 0]
        assert plane.counters()["downstream_idle_timeouts"] == 1
        talker.socket.close()


# ---- origins


class QuietOrigin:
    """An origin of HTTP/2 in the hands of the test: what it accepted stands in `talkers`."""

    def __enter__(self) -> "QuietOrigin":
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.talkers: list[Talker] = []
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.close()
        for talker in self.talkers:
            talker.socket.close()

    def accept(self) -> Talker:
        self.listening.settimeout(PATIENCE)
        talker = Talker(self.listening.accept()[0])
        self.talkers.append(talker)
        talker.send(settings(), frame(SETTINGS, ACK))
        got = b""
        while len(got) < len(PREFACE):
            got += talker.socket.recv(len(PREFACE) - len(got))
        assert got == PREFACE
        return talker

    def is_asked_anew(self) -> bool:
        return bool(select.select([self.listening], [], [], 0)[0])


@pytest.fixture
def quiet() -> Iterator[QuietOrigin]:
    with QuietOrigin() as origin:
        yield origin


def ask(port: int, answers: list[bytes]) -> threading.Thread:
    """A request whose answer is put into the list."""

    def run() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            got = b""
            while came := sock.recv(65536):
                got += came
            answers.append(got)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def request_of(talker: Talker, number: int = 0) -> int:
    """The stream of a request."""
    talker.wait(lambda each: each.type == HEADERS and each.stream == 2 * number + 1)
    return 2 * number + 1


def test_an_origin_that_falls_silent_is_asked_whether_it_lives_and_given_up(clock: Path, quiet: QuietOrigin) -> None:
    with DataPlane(origin_config(quiet.port, cluster={"protocol": "HTTP2"}), clock=clock) as plane:
        answers: list[bytes] = []
        thread = ask(plane.port, answers)
        talker = quiet.accept()
        request_of(talker)
        plane.skip(32)
        talker.wait(lambda each: each.type == PING and not each.flags)
        assert not answers
        plane.skip(12)
        while talker.more():
            pass
        thread.join(PATIENCE)
        assert answers and answers[0].startswith(b"HTTP/1.1 502 ")
        assert plane.record()["flags"] == "UC"


def test_an_origin_that_is_slow_and_answers_pings_is_waited_for(clock: Path, quiet: QuietOrigin) -> None:
    with DataPlane(origin_config(quiet.port, cluster={"protocol": "HTTP2"}), clock=clock) as plane:
        answers: list[bytes] = []
        thread = ask(plane.port, answers)
        talker = quiet.accept()
        stream = request_of(talker)
        for _ in range(4):
            plane.skip(32)
            ping = talker.wait(lambda each: each.type == PING and not each.flags)
            talker.seen.clear()
            talker.send(frame(PING, ACK, payload=ping.payload))
            talker.ping()
        talker.send(talker.speaker.headers(stream, OK, end=False), data(stream, b"late", end=True))
        thread.join(PATIENCE)
        assert answers and answers[0].startswith(b"HTTP/1.1 200 ") and b"late" in answers[0]


def live(plane: DataPlane, talker: Talker, halves: int) -> None:
    """So many half minutes pass, in which the origin answers every PING."""
    for _ in range(halves):
        plane.skip(30)
        talker.ping()
        while asked := [each for each in talker.seen if each.type == PING and not each.flags]:
            talker.seen = [each for each in talker.seen if each not in asked]
            talker.send(*(frame(PING, ACK, payload=each.payload) for each in asked))
            talker.ping()


def test_a_connection_to_an_origin_that_is_old_makes_place_for_a_new_one(clock: Path, quiet: QuietOrigin) -> None:
    """An hour, and by chance up to a quarter more: what is open on it ends there, what is new goes elsewhere."""
    cluster = {"protocol": "HTTP2", "idleTimeout": "24h"}
    config = origin_config(quiet.port, cluster=cluster, limits={"streamIdleTimeout": "24h"})
    with DataPlane(config, clock=clock) as plane:
        answers: list[bytes] = []
        first = ask(plane.port, answers)
        old = quiet.accept()
        request_of(old)
        live(plane, old, 119)
        second = ask(plane.port, answers)
        request_of(old, 1)
        assert not quiet.is_asked_anew()
        live(plane, old, 31)
        old.wait(lambda each: each.type == GOAWAY)
        third = ask(plane.port, answers)
        new = quiet.accept()
        request_of(new)
        for talker, stream in ((old, 1), (old, 3), (new, 1)):
            talker.send(talker.speaker.headers(stream, OK, end=False), data(stream, b"done", end=True))
        for thread in (first, second, third):
            thread.join(PATIENCE)
        assert len(answers) == 3 and all(answer.startswith(b"HTTP/1.1 200 ") and b"done" in answer for answer in answers)
        # nothing is left on the old one, and it is closed
        while old.more():
            pass
        assert plane.cluster()["endpoints"][0]["active"] == 0
