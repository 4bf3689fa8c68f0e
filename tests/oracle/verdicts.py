"""One message as three readers see it: ours, h11, httptools. A verdict is what was read, or the reason for refusing."""

from dataclasses import dataclass, field

import h11
import httptools

from gateway._core.selftest import decode_body, parse_request, parse_response

FRAME_CLOSE = 3


@dataclass(slots=True)
class Verdict:
    fault: str | None = None
    head: bool = False  # the head was complete
    first: tuple[bytes, ...] = ()  # method and target, or the status
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    content: bytes = b""
    end: bool = False  # the message was complete
    switched: bool = False  # it left HTTP at the end of the head, and said nothing of the content

    @property
    def accepted(self) -> bool:
        return self.fault is None and self.head


def alike(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without the one liberty that h11 takes: it writes the coding in lower case."""
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]


def ours(data: bytes, *, request_method: int | None = None) -> Verdict:
    head = parse_request(data) if request_method is None else parse_response(data, request_method=request_method)
    if head["fault"] or not head["used"]:
        return Verdict(fault=head["fault"])
    body = decode_body(data[head["used"] :], framing=head["framing"], length=head["length"])
    first = (head["method"], head["target"]) if request_method is None else (b"%d" % head["status"],)
    # Fields as they were received: what validate marked is still there.
    fields = alike([(name, value) for name, value, _, _ in head["fields"]])
    return Verdict(body["fault"], True, first, fields, body["content"], body["end"])


def of_h11(data: bytes, *, method: bytes | None = None) -> Verdict:
    """method: of the request that a response answers; None reads a request."""
    verdict = Verdict()
    connection = h11.Connection(h11.SERVER if method is None else h11.CLIENT)
    if method is not None:
        connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                verdict.first = (bytes(event.method), bytes(event.target))
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                verdict.first = (b"%d" % event.status_code,)
            elif isinstance(event, h11.Data):
                verdict.content += bytes(event.data)
                continue
            elif isinstance(event, h11.EndOfMessage):
                verdict.end = True
                return verdict
            else:
                return verdict
            verdict.head = True
            verdict.fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            if isinstance(event, h11.InformationalResponse):
                verdict.end = True
                return verdict
    except h11.RemoteProtocolError as problem:
        verdict.fault = str(problem)
        return verdict


class Listener:
    """Callbacks of httptools: keeps the first message, ignores what follows it."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self.url = b""

    def on_url(self, url: bytes) -> None:
        if not self.verdict.end:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.verdict.end and not self.verdict.head:
            self.verdict.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.verdict.head = True

    def on_body(self, body: bytes) -> None:
        if not self.verdict.end:
            self.verdict.content += body

    def on_message_complete(self) -> None:
        self.verdict.end = True


def of_httptools(data: bytes, *, is_request: bool = True) -> Verdict:
    listener = Listener()
    verdict = listener.verdict
    parser = httptools.HttpRequestParser(listener) if is_request else httptools.HttpResponseParser(listener)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:  # at any Upgrade field; for us h2c is none (item 45), so we read on
        verdict.switched = True
    except httptools.HttpParserError as problem:
        if not verdict.end:
            verdict.fault = repr(problem)
    verdict.fields = alike(verdict.fields)
    if verdict.head and isinstance(parser, httptools.HttpRequestParser):
        verdict.first = (parser.get_method(), listener.url)
    elif verdict.head and isinstance(parser, httptools.HttpResponseParser):
        verdict.first = (b"%d" % parser.get_status_code(),)
    return verdict
