"""Heads of HTTP/2 held to the rules: items 49 to 56, RFC 9113 §8, RFC 8441."""

from typing import Any

import pytest
from hpack import Encoder

from gateway._core.h2test import HpackReader

NONE, LENGTH, STREAM = 0, 1, 4
KEEP_ALIVE, EXPECT, UPGRADE, TE_TRAILERS, ASTERISK, WEBSOCKET = 1, 2, 4, 8, 32, 128
GET, HEAD, POST, CONNECT = 1, 2, 3, 9
Pair = tuple[bytes, bytes]
START: dict[bytes, bytes] = {b":method": b"GET", b":scheme": b"https", b":authority": b"a.example", b":path": b"/"}


def ask(*fields: Pair, ended: bool = True, without: tuple[bytes, ...] = (), **pseudo: bytes) -> dict[str, Any]:
    start = {**START, **{b":" + name.encode(): value for name, value in pseudo.items()}}
    pairs = [(name, value) for name, value in start.items() if name not in without]
    return HpackReader().read(Encoder().encode([*pairs, *fields]), validate=True, ended=ended)


def answer(*fields: Pair, status: bytes = b"200", ended: bool = True, method: int = GET) -> dict[str, Any]:
    return HpackReader().read(
        Encoder().encode([(b":status", status), *fields]), "response", validate=True, ended=ended, method=method
    )


def fault(*fields: Pair, **rest: Any) -> Any:
    return ask(*fields, **rest)["fault"]


def live(head: dict[str, Any]) -> list[Pair]:
    return [(name, value) for name, value, _, drop in head["fields"] if not drop]


# §8.3.1 and item 50: pseudo-header fields of requests


def test_8_3_1_a_request() -> None:
    head = ask((b"accept", b"*/*"), path=b"/a/../b?c=d", authority=b"A.Example:8443")
    assert head["fault"] is None
    assert (head["path"], head["query"], head["host"], head["port"]) == (b"/b", b"c=d", b"a.example", 8443)
    assert (head["framing"], head["flags"]) == (NONE, KEEP_ALIVE)


@pytest.mark.parametrize("name", [b":method", b":scheme", b":path"])
def test_8_3_1_what_must_be_there(name: bytes) -> None:
    assert fault(without=(name,)) == "h2_pseudo"


def test_8_3_1_authority_or_host() -> None:
    assert fault(without=(b":authority",)) == "authority"
    head = ask((b"host", b"B.example:81"), without=(b":authority",))
    assert (head["fault"], head["host"], head["port"]) == (None, b"b.example", 81)
    assert fault((b"host", b""), without=(b":authority",)) == "authority"
    assert fault(authority=b"") == "authority"


@pytest.mark.parametrize("path", [b"", b"a", b"*", b"*/x", b"//a b", b"/a#b", b"/\xc3\xa4", b"http://a/", b"?a", b"/\x7f"])
def test_item_50_path(path: bytes) -> None:
    assert fault(path=path) in ("target", "field_value")


@pytest.mark.parametrize("path", [b"/%2f", b"/..", b"/%00", b"/a\\b", b"/%zz", b"/..;/a"])
def test_item_57_paths_that_cannot_be_normalised(path: bytes) -> None:
    assert fault(path=path) == "path"


def test_options_asterisk() -> None:
    head = ask(method=b"OPTIONS", path=b"*")
    assert head["fault"] is None and head["flags"] & ASTERISK


@pytest.mark.parametrize("scheme", [b"", b"ftp", b"http/1", b"https:", b"httpss", b"h", b"htt p", b"http://a"])
def test_item_50_scheme(scheme: bytes) -> None:
    assert fault(scheme=scheme) == "h2_pseudo"


def test_item_50_scheme_in_any_case() -> None:
    assert fault(scheme=b"HTTP") is None


@pytest.mark.parametrize(
    "authority", [b"u@a", b"a,b", b"a b", b"a:0", b"a:65536", b"[::1", b"a/b", b"a?b", b"a..b", b"%61", b":80"]
)
def test_item_50_authority(authority: bytes) -> None:
    assert fault(authority=authority) == "authority"


@pytest.mark.parametrize(
    ("scheme", "authority", "host", "wrong"),
    [
        (b"https", b"a", b"a", None),
        (b"https", b"a", b"A", None),
        (b"https", b"a:443", b"a", None),
        (b"https", b"a", b"a:443", None),
        (b"http", b"a", b"a:80", None),
        (b"http", b"a", b"a:443", "authority"),
        (b"https", b"a", b"b", "authority"),
        (b"https", b"a", b"a:444", "authority"),
        (b"https", b"a", b"", "authority"),
        (b"https", b"a", b"a b", "authority"),
    ],
)
def test_item_51_host_is_what_authority_is(scheme: bytes, authority: bytes, host: bytes, wrong: str | None) -> None:
    assert fault((b"host", host), scheme=scheme, authority=authority) == wrong
    assert fault((b"host", host), (b"host", host), scheme=scheme, authority=authority) == "authority"


def test_item_51_both_count() -> None:
    with_host, without = ask((b"host", b"a.example")), ask()
    assert (with_host["count"], with_host["list"]) == (without["count"] + 1, without["list"] + 4 + 9 + 32)
    assert with_host["host"] == without["host"]


# §8.5 and RFC 8441


def test_8_5_connect_is_not_offered() -> None:
    assert fault(method=b"CONNECT", without=(b":scheme", b":path")) == "connect"
    assert fault(method=b"CONNECT") == "h2_pseudo"
    assert fault(method=b"CONNECT", without=(b":scheme",)) == "h2_pseudo"
    assert fault(method=b"CONNECT", without=(b":scheme", b":path", b":authority")) == "h2_pseudo"
    assert fault(method=b"TRACE") == "trace"


def test_8441_extended_connect() -> None:
    head = ask(method=b"CONNECT", protocol=b"websocket", path=b"/chat?x", ended=False)
    assert (head["fault"], head["path"], head["query"], head["framing"]) == (None, b"/chat", b"x", NONE)
    assert head["flags"] & (UPGRADE | WEBSOCKET) == UPGRADE | WEBSOCKET
    other = ask(method=b"CONNECT", protocol=b"connect-udp", ended=False)
    assert other["fault"] is None and other["flags"] & (UPGRADE | WEBSOCKET) == UPGRADE


def test_8441_what_it_must_be() -> None:
    assert fault(protocol=b"websocket") == "h2_pseudo"
    for name in (b":scheme", b":path", b":authority"):
        assert fault(method=b"CONNECT", protocol=b"websocket", without=(name,)) == "h2_pseudo"
    assert fault(method=b"CONNECT", protocol=b"") == "h2_pseudo"
    assert fault(method=b"CONNECT", protocol=b"web socket") == "h2_pseudo"
    assert fault((b"content-length", b"5"), method=b"CONNECT", protocol=b"websocket", ended=False) == "upgrade_body"


# Item 52, §8.2.2


@pytest.mark.parametrize("name", [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"])
def test_item_52_fields_of_a_connection(name: bytes) -> None:
    for value in (b"", b"close", b"chunked", b"x"):
        assert fault((name, value)) == "h2_hop"
        assert answer((name, value))["fault"] == "h2_hop"
        reader = HpackReader()
        assert reader.read(Encoder().encode([(name, value)]), "trailers", validate=True)["fault"] == "h2_hop"


def test_item_52_te_is_trailers_and_once() -> None:
    head = ask((b"te", b"trailers"))
    assert head["fault"] is None and head["flags"] & TE_TRAILERS
    assert head["fields"] == [(b"te", b"trailers", True, False)]
    for value in (b"", b"gzip", b"trailers, gzip", b"trailers;q=1", b"trailers,trailers"):
        assert fault((b"te", value)) == "h2_hop"
    assert fault((b"te", b"trailers"), (b"te", b"trailers")) == "h2_hop"


def test_item_45_settings_of_an_upgrade_are_dropped() -> None:
    assert live(ask((b"http2-settings", b"AAA"), (b"x", b"1"))) == [(b"x", b"1")]


def test_item_48_underscores() -> None:
    assert fault((b"x_a", b"1")) == "underscore"


# Item 53: content


def test_item_53_how_the_content_ends() -> None:
    five, zero = (b"content-length", b"5"), (b"content-length", b"0")
    for fields, ended, framing in [((), True, NONE), ((), False, STREAM), ((five,), False, LENGTH), ((zero,), True, LENGTH)]:
        head = ask(*fields, ended=ended, method=b"POST")
        assert (head["fault"], head["framing"]) == (None, framing)


def test_item_53_a_length_without_content() -> None:
    assert fault((b"content-length", b"5")) == "h2_length"
    assert answer((b"content-length", b"5"))["fault"] == "h2_length"


@pytest.mark.parametrize("text", [b"", b"+5", b"-1", b"5,5", b"0x5", b"9223372036854775808", b"5a"])
def test_item_05_the_grammar_of_a_length(text: bytes) -> None:
    assert fault((b"content-length", text), ended=False) == "length"
    assert answer((b"content-length", text), ended=False)["fault"] == "length"


def test_item_04_two_lengths() -> None:
    assert fault((b"content-length", b"5"), (b"content-length", b"5"), ended=False) == "length"


# Item 55: cookies


def test_item_55_crumbs_are_joined_once() -> None:
    head = ask((b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2; c=3"), (b"cookie", b""), (b"cookie", b"d=4"))
    assert live(head) == [(b"cookie", b"a=1; b=2; c=3; ; d=4"), (b"x", b"1")]
    assert head["count"] == 5


def test_item_55_one_cookie_stays_as_it_is() -> None:
    head = ask((b"cookie", b"a=1; b=2"))
    assert head["fields"] == [(b"cookie", b"a=1; b=2", False, False)]


def test_item_55_crumbs_are_bounded() -> None:
    assert live(ask(*[(b"cookie", b"a=%d" % i) for i in range(64)]))[0][1].count(b"; ") == 63
    assert fault(*[(b"cookie", b"a=%d" % i) for i in range(65)]) == "fields_many"


def test_item_55_long_crumbs() -> None:
    crumbs = [bytes([97 + i]) * 900 for i in range(20)]
    assert live(ask(*[(b"cookie", crumb) for crumb in crumbs])) == [(b"cookie", b"; ".join(crumbs))]


# What HTTP/1.1 has too


def test_expect() -> None:
    assert ask((b"expect", b"100-continue"), ended=False, method=b"POST")["flags"] & EXPECT
    assert not ask((b"expect", b"100-continue"))["flags"] & EXPECT
    assert fault((b"expect", b"200-ok")) == "expect"


def test_max_forwards() -> None:
    assert fault((b"max-forwards", b"x"), method=b"OPTIONS") == "max_forwards"
    assert fault((b"max-forwards", b"3"), method=b"OPTIONS") is None


# Responses


def test_responses() -> None:
    five, zero = (b"content-length", b"5"), (b"content-length", b"0")
    for fields, ended, framing in [((), True, NONE), ((), False, STREAM), ((five,), False, LENGTH), ((zero,), True, LENGTH)]:
        head = answer(*fields, ended=ended)
        assert (head["fault"], head["framing"], head["pseudo"]) == (None, framing, {b":status": b"200"})


def test_8_3_2_a_response_has_a_status() -> None:
    reader = HpackReader()
    assert reader.read(Encoder().encode([(b"x", b"1")]), "response", validate=True)["fault"] == "status"
    for status in (b"099", b"600", b"000", b"999"):
        assert answer(status=status)["fault"] == "status"


def test_8_6_no_101() -> None:
    assert answer(status=b"101", ended=False)["fault"] == "switched"


def test_8_1_a_1xx_is_not_the_end() -> None:
    assert answer(status=b"103", ended=False)["fault"] is None
    assert answer(status=b"103")["fault"] == "h2_frame"
    assert answer((b"content-length", b"5"), status=b"100", ended=False)["fault"] == "length"
    assert live(answer((b"content-length", b"0"), (b"x", b"1"), status=b"103", ended=False)) == [(b"x", b"1")]


def test_answers_without_content_keep_their_length() -> None:
    for status, method in ((b"200", HEAD), (b"304", GET), (b"404", HEAD)):
        head = answer((b"content-length", b"5"), status=status, method=method)
        assert (head["fault"], head["framing"]) == (None, NONE)
        assert live(head) == [(b"content-length", b"5")]
    assert answer((b"content-length", b"5x"), method=HEAD)["fault"] == "length"


def test_204_has_no_length() -> None:
    head = answer((b"content-length", b"0"), status=b"204")
    assert (head["fault"], head["framing"], live(head)) == (None, NONE, [])
    assert answer((b"content-length", b"5"), status=b"204", ended=False)["fault"] == "h2_length"


def test_an_accepted_connect_has_no_content() -> None:
    head = answer((b"content-length", b"5"), ended=False, method=CONNECT)
    assert (head["fault"], head["framing"], live(head)) == (None, NONE, [])
    assert answer((b"content-length", b"5"), status=b"403", ended=False, method=CONNECT)["framing"] == LENGTH
