"""A client of HTTP/2 as bytes, and what a session of ours made of them."""

from typing import Any

from h2frames import ACK, GET, GOAWAY, PREFACE, RST_STREAM, SETTINGS, Frame, Pairs, Speaker, frame, frames, settings

from gateway._core.h2probe import Session


class Client:
    """A client as bytes, and what the session made of them."""

    def __init__(self, *sent: tuple[int, int], acknowledge: bool = True, **limits: int) -> None:
        self.session, self.speaker = Session(True, **limits), Speaker()
        self.said = frames(self.session.output())
        self.send(PREFACE + settings(*sent) + (frame(SETTINGS, ACK) if acknowledge else b""))
        assert self.events == [("settings",)]
        assert frames(self.session.output()) == [Frame(SETTINGS, ACK, 0, b"")]

    def send(self, *pieces: bytes) -> None:
        self.session.feed(b"".join(pieces))

    def ask(self, stream: int, pairs: Pairs = GET, end: bool = True) -> None:
        self.send(self.speaker.headers(stream, pairs, end))

    @property
    def events(self) -> list[tuple[Any, ...]]:
        return self.session.events

    def answers(self) -> list[Frame]:
        return frames(self.session.all_output())

    def broken(self, code: int, *pieces: bytes) -> str:
        """The connection ends with this error; the fault's name."""
        self.send(*pieces)
        last = self.answers()[-1]
        assert (last.type, last.code) == (GOAWAY, code)
        assert self.session.dead
        events = self.events
        assert events[-1] == ("over",)
        self.send(self.speaker.headers(99, GET))
        assert self.events == [] and self.answers() == []
        return str(next(event[1] for event in events if event[0] == "fault"))

    def reset(self, stream: int, code: int, *pieces: bytes) -> str:
        """The stream is reset with this error, and the connection goes on."""
        self.send(*pieces)
        assert Frame(RST_STREAM, 0, stream, code.to_bytes(4, "big")) in self.answers()
        assert not self.session.dead and stream not in self.session.streams()
        events = self.events
        gone = [event for event in events if event[0] == "gone"]
        assert [event[1:4] for event in gone] == [(stream, "fault", code)]
        assert ("fault", gone[0][4]) in events
        return str(gone[0][4])
