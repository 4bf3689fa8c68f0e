"""Differential tests: valid messages and mutations of them, read by us, by h11 and by httptools.

What we accept, both accept, and all three read the same; what we refuse and they accept is on the reviewed list. GW_ORACLE_EXAMPLES
sets how many messages are tried (the default keeps the suite short); each run with that variable set tries other ones.
"""

import os

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from reviewed import LOOSER_REQUESTS, LOOSER_RESPONSES, STRICTER, Reviewed
from verdicts import Verdict, of_h11, of_httptools, ours

EXAMPLES = int(os.environ.get("GW_ORACLE_EXAMPLES", "400"))
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="GW_ORACLE_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TOKEN = st.sampled_from([b"X-A", b"accept", b"User-Agent", b"x", b"Sec-Fetch-Site", b"Cookie", b"Via", b"!#$%&'*+-.^`|~09"])
VALUE = st.one_of(
    st.sampled_from(
        [b"", b"a", b"a b", b"a\tb", b"*/*", b"text/html;q=0.9, x", b"\xff\x80", b'"quoted, \\" text"', b"v" * 70, b":"]
    ),
    st.text(alphabet=[chr(c) for c in [*range(0x21, 0x7F), *range(0xA1, 0x100)]], max_size=20).map(
        lambda text: text.encode("latin-1")
    ),
)
PAD = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t "])
FIELD = st.builds(lambda name, before, value, after: name + b":" + before + value + after, TOKEN, PAD, VALUE, PAD)
SPECIAL = st.sampled_from(
    [
        b"Connection: close",
        b"Connection: keep-alive, X-A",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"TE: trailers",
        b"Trailer: x-sum",
        b"Host: b",
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Content-Length: 0005",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Max-Forwards: 1",
        b"x_y: 1",
        b" folded",
        b"no colon",
    ]
)
METHOD = st.sampled_from(
    [b"GET", b"GET", b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"PATCH", b"FOO", b"get"]
)
TARGET = st.sampled_from(
    [
        b"/",
        b"/",
        b"/a/b?c=d",
        b"/%41/../x",
        b"/a;b=c?d#e",
        b"/\xc3\xa4",
        b"*",
        b"http://a/x?y",
        b"http://a",
        b"HTTP://A:80/",
        b"http://u@a/",
        b"//x",
        b'/a|{}"<>',
        b"a",
        b"/..",
        b"/%zz",
    ]
)
VERSION = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"HTTP/2.0"])
SIZE = st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])
EXTENSION = st.sampled_from([b""] * 6 + [b";a", b";a=b", b';a="b;c"', b"; a = b", b";", b";a b", b" "])
TRAILER = st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"x:\r\n", b"Content-Length: 5\r\n", b"bad trailer\r\n"])


@st.composite
def chunked(draw: st.DrawFn, odd: bool) -> bytes:
    extension = EXTENSION if odd else st.just(b"")
    out = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        out += draw(SIZE) % len(piece) + draw(extension) + b"\r\n" + piece + b"\r\n"
    return out + draw(st.sampled_from([b"0", b"0", b"000"])) + draw(extension) + b"\r\n" + (draw(TRAILER) if odd else b"") + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, odd: bool) -> tuple[list[bytes], bytes]:
    """Framing fields and the content that they announce."""
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    if kind == "length":
        content = draw(st.binary(max_size=30))
        return [b"Content-Length: %d" % len(content)], content
    return ([b"Transfer-Encoding: chunked"], draw(chunked(odd))) if kind == "chunked" else ([], b"")


@st.composite
def message(draw: st.DrawFn, start: st.SearchStrategy[bytes], fixed: list[bytes], *, odd: bool = True) -> bytes:
    """odd: fields, extensions and trailers that somebody may refuse are among the parts."""
    framing, content = draw(framed(odd))
    lines = [*fixed, *draw(st.lists(FIELD, max_size=4)), *(draw(st.lists(SPECIAL, max_size=2)) if odd else []), *framing]
    if draw(st.integers(0, 3)) == 0:
        lines = draw(st.permutations(lines))
    return b"\r\n".join([draw(start), *lines, b"", b""]) + content


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    data = draw(whole)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.integers(0, 4))
        piece = draw(
            st.one_of(
                st.sampled_from(
                    [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b",", b";", b"0", b"\x0b", b"\x7f", b"\xff", b"#", b"%"]
                ),
                st.binary(min_size=1, max_size=2),
            )
        )
        if what == 0:
            data = data[:at] + piece + data[at:]
        elif what == 1:
            data = data[:at] + data[at + 1 :]
        elif what == 2:
            data = data[:at] + piece + data[at + 1 :]
        elif what == 3:
            data = data[:at]
        else:
            end = draw(st.integers(at, min(len(data), at + 30)))
            data = data[:end] + data[at:end] + data[end:]
    return data


START = st.builds(lambda method, target, version: method + b" " + target + b" " + version, METHOD, TARGET, VERSION)
STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 4 + [b"HTTP/1.1 200 ", b"HTTP/1.1 404 Not \xff", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 x"]
)
OTHER_STATUS = st.sampled_from(
    [b"HTTP/1.1 304 x", b"HTTP/1.1 500", b"HTTP/1.1 100 Continue", b"HTTP/1.1 600 x", b"HTTP/1.1 20 x", b"HTTP/2.0 200 x"]
)


def compare(name: str, data: bytes, mine: Verdict, other: Verdict, looser: Reviewed) -> None:
    if mine.accepted and other.fault is not None:
        reasons = [reason for oracle, predicate, reason in looser if oracle == name and predicate(data)]
        event(f"looser than {name}: {reasons}")
        assert reasons, f"we accept what {name} refuses ({other.fault}): {data!r}"
        return
    if mine.fault is not None and other.accepted:
        event(f"stricter than {name}: {mine.fault}")
        assert mine.fault in STRICTER, f"{name} accepts what we refuse ({mine.fault}): {data!r}"
        return
    if mine.accepted and other.head:
        event(f"same as {name}")
        assert (mine.first, mine.fields) == (other.first, other.fields), f"{name}: {data!r}"
        assert other.switched or (mine.content, mine.end) == (other.content, other.end), f"{name}: {data!r}"
    elif mine.accepted:
        raise AssertionError(f"{name} waits for more of a head that is complete for us: {data!r}")


@bounded
@given(mutated(message(START, [b"Host: a"])))
def test_requests(data: bytes) -> None:
    mine = ours(data)
    compare("h11", data, mine, of_h11(data), LOOSER_REQUESTS)
    compare("httptools", data, mine, of_httptools(data), LOOSER_REQUESTS)


@bounded
@given(mutated(message(st.one_of(STATUS, OTHER_STATUS), [])))
def test_responses(data: bytes) -> None:
    mine = ours(data, request_method=1)
    compare("h11", data, mine, of_h11(data, method=b"GET"), LOOSER_RESPONSES)
    compare("httptools", data, mine, of_httptools(data, is_request=False), LOOSER_RESPONSES)


@bounded
@given(message(st.sampled_from([b"POST / HTTP/1.1", b"GET /a?b HTTP/1.1", b"PUT /x HTTP/1.1"]), [b"Host: a"], odd=False))
def test_plain_messages_are_accepted_by_all(data: bytes) -> None:
    """The comparison would be empty if everything were refused."""
    for verdict in (ours(data), of_h11(data), of_httptools(data)):
        assert verdict.accepted and verdict.end, (verdict, data)


@pytest.mark.parametrize("fault", sorted(STRICTER))
def test_the_reviewed_list_names_faults(fault: str) -> None:
    from gateway._core.faults import NAMES

    assert fault in NAMES
