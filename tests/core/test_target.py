"""Where a request goes: items 27 to 32 (target, Host) and 57 (path)."""

import ipaddress
import random

import pytest

from gateway._core.selftest import normalise, parse_request, read_ipv4, read_ipv6, read_port, split_authority

ABSOLUTE, ASTERISK = 16, 32


def ask(start: bytes, *lines: bytes) -> dict[str, object]:
    data = b"\r\n".join([start, *lines, b"", b""])
    whole = parse_request(data)
    assert parse_request(data, 1) == whole
    return whole


def fault(start: bytes, *lines: bytes) -> object:
    return ask(start, *lines)["fault"]


def test_origin_form() -> None:
    answer = ask(b"GET /a/b?c=d&e HTTP/1.1", b"Host: Example.COM:8080")
    assert (answer["path"], answer["query"]) == (b"/a/b", b"c=d&e")
    assert (answer["authority"], answer["host"], answer["port"]) == (b"Example.COM:8080", b"example.com", 8080)
    assert ask(b"GET /? HTTP/1.1", b"Host: a")["query"] == b""
    assert ask(b"GET / HTTP/1.1", b"Host: a")["query"] is None
    assert ask(b'GET /?a?b/../%zz|{}^`"\\ HTTP/1.1', b"Host: a")["query"] == b'a?b/../%zz|{}^`"\\'


def test_item_27_host_is_there_once() -> None:
    assert fault(b"GET / HTTP/1.1") == "authority"
    assert fault(b"GET / HTTP/1.1", b"Host: a", b"Host: a") == "authority"
    assert fault(b"GET / HTTP/1.1", b"Host: a", b"Host: b") == "authority"
    assert fault(b"GET / HTTP/1.1", b"Host: a", b"HOST:") == "authority"
    assert fault(b"GET / HTTP/1.0") is None
    assert fault(b"GET / HTTP/1.0", b"Host: a", b"Host: b") == "authority"
    answer = ask(b"GET / HTTP/1.1", b"Host:")
    assert (answer["fault"], answer["authority"], answer["host"]) == (None, b"", b"")


@pytest.mark.parametrize(
    "host",
    [
        b"a,b", b"a, b", b"a b", b"user@a", b"user:pw@a", b"@a", b"a/b", b"a?b", b"a#b", b"a\\b", b"http://a", b"[::1", b"::1",
        b"[::1]]", b"[::1]x", b"[]", b"[1.2.3.4]", b"[::g]", b"[fe80::1%25eth0]", b"[v1.x]", b"a:0", b"a:65536", b"a:99999", b"a:",
        b"a:x", b"a:80x", b"a:+80", b"a:-1", b"a:080", b"a:80:80", b":80", b".", b"..", b".a", b"a..b", b"a..", b"\xe4", b"a%2eb",
        b"a%00", b"<a>", b"a;b", b"a'b", b"a\"b", b"*", b"*.a", b"a\tb", b"x" * 256,
    ],
)  # fmt: skip
def test_item_27_host_is_a_host(host: bytes) -> None:
    assert fault(b"GET / HTTP/1.1", b"Host: " + host) == "authority"
    assert split_authority(host) is None


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        (b"a", b"a", 0),
        (b"A.b-C.example.", b"a.b-c.example", 0),
        (b"a.:1", b"a", 1),
        (b"my_service:65535", b"my_service", 65535),
        (b"127.0.0.1:80", b"127.0.0.1", 80),
        (b"[::1]", b"[::1]", 0),
        (b"[2001:DB8::1]:443", b"[2001:db8::1]", 443),
        (b"[::ffff:1.2.3.4]", b"[::ffff:1.2.3.4]", 0),
        (b"x" * 255, b"x" * 255, 0),
    ],
)
def test_hosts_that_are_hosts(host: bytes, name: bytes, port: int) -> None:
    assert split_authority(host) == (name, port)
    answer = ask(b"GET / HTTP/1.1", b"Host: " + host)
    assert (answer["host"], answer["port"], answer["authority"]) == (name, port, host)


def test_item_28_absolute_form_replaces_host() -> None:
    answer = ask(b"GET http://Example.com/a/../b?c HTTP/1.1", b"Host: example.com")
    assert answer["flags"] == 1 | ABSOLUTE
    assert (answer["scheme"], answer["authority"], answer["host"]) == (b"http", b"Example.com", b"example.com")
    assert (answer["path"], answer["query"]) == (b"/b", b"c")
    assert ask(b"GET HTTPS://a HTTP/1.1", b"Host: a")["scheme"] == b"HTTPS"
    assert ask(b"GET http://a HTTP/1.0")["host"] == b"a"
    assert ask(b"GET http://a:80/ HTTP/1.1", b"Host: a")["port"] == 80
    assert ask(b"GET https://a/ HTTP/1.1", b"Host: a:443")["fault"] is None


@pytest.mark.parametrize(
    ("target", "host"),
    [(b"http://a/", b"b"), (b"http://a:81/", b"a"), (b"http://a/", b"a:81"), (b"https://a/", b"a:80"), (b"http://a/", b"")],
)
def test_item_28_a_request_that_names_two_hosts_is_refused(target: bytes, host: bytes) -> None:
    assert fault(b"GET " + target + b" HTTP/1.1", b"Host: " + host) == "authority"


def test_item_28_absolute_form_does_not_excuse_a_missing_or_doubled_host() -> None:
    assert fault(b"GET http://a/ HTTP/1.1") == "authority"
    assert fault(b"GET http://a/ HTTP/1.1", b"Host: a", b"Host: a") == "authority"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [(b"http://a", b"/", None), (b"http://a?q", b"/", b"q"), (b"http://a/x", b"/x", None), (b"http://a?/@b", b"/", b"/@b")],
)
def test_item_29_the_authority_ends_at_slash_or_question_mark(target: bytes, path: bytes, query: bytes | None) -> None:
    answer = ask(b"GET " + target + b" HTTP/1.1", b"Host: a")
    assert (answer["host"], answer["path"], answer["query"]) == (b"a", path, query)


@pytest.mark.parametrize("target", [b"http:///", b"http://", b"http://u@a/", b"http://a:0/", b"http://a,b/", b"http://a\\b/"])
def test_item_29_a_malformed_authority_is_refused(target: bytes) -> None:
    assert fault(b"GET " + target + b" HTTP/1.1", b"Host: a") in ("authority", "target")


@pytest.mark.parametrize("target", [b"/a#b", b"/#", b"#", b"http://a#b", b"http://a/#", b"/?a#b", b"*#"])
def test_item_30_a_fragment_is_refused(target: bytes) -> None:
    assert fault(b"GET " + target + b" HTTP/1.1", b"Host: a") == "target"


def test_item_31_asterisk_is_for_options_alone() -> None:
    answer = ask(b"OPTIONS * HTTP/1.1", b"Host: a")
    assert (answer["path"], answer["flags"]) == (b"*", 1 | ASTERISK)
    assert fault(b"GET * HTTP/1.1", b"Host: a") == "target"
    assert fault(b"OPTIONS */x HTTP/1.1", b"Host: a") == "target"
    assert fault(b"OPTIONS *?x HTTP/1.1", b"Host: a") == "target"
    answer = ask(b"OPTIONS http://a HTTP/1.1", b"Host: a")
    assert (answer["path"], answer["flags"]) == (b"*", 1 | ABSOLUTE | ASTERISK)
    assert ask(b"OPTIONS http://a/ HTTP/1.1", b"Host: a")["path"] == b"/"


def test_item_31_connect_is_405_and_only_authority_form() -> None:
    assert fault(b"CONNECT a:443 HTTP/1.1", b"Host: a:443") == "connect"
    assert fault(b"CONNECT a HTTP/1.1", b"Host: a") == "target"
    assert fault(b"CONNECT / HTTP/1.1", b"Host: a") == "authority"
    assert fault(b"CONNECT http://a:80/ HTTP/1.1", b"Host: a") == "authority"
    assert fault(b"GET a:443 HTTP/1.1", b"Host: a") == "target"


@pytest.mark.parametrize("target", [b"a", b"a/b", b"?x", b".", b"ftp://a/", b"http:/a", b"http:a", b"//", b"javascript:x", b"%2f"])
def test_item_32_a_target_begins_with_a_slash(target: bytes) -> None:
    expected = None if target == b"//" else "target"
    assert fault(b"GET " + target + b" HTTP/1.1", b"Host: a") == expected


@pytest.mark.parametrize("byte", [*range(0x80, 0x100, 17), 0xFF, 1, 0x7F])
def test_bytes_that_are_no_visible_ascii_are_refused_in_targets(byte: int) -> None:
    assert fault(b"GET /a%c HTTP/1.1" % byte, b"Host: a") == "target"


# Item 57: paths

NORMAL = [
    (b"/", b"/"),
    (b"/a/b", b"/a/b"),
    (b"//", b"/"),
    (b"///a//b//", b"/a/b/"),
    (b"/.", b"/"),
    (b"/./", b"/"),
    (b"/a/.", b"/a/"),
    (b"/a/./b", b"/a/b"),
    (b"/a/..", b"/"),
    (b"/a/../", b"/"),
    (b"/a/b/..", b"/a/"),
    (b"/a/b/../c", b"/a/c"),
    (b"/a/b/../../c", b"/c"),
    (b"/a//../b", b"/b"),
    (b"/%2e/a", b"/a"),
    (b"/a/%2E%2e/b", b"/b"),
    (b"/a/.%2e/b", b"/b"),
    (b"/%41%7e%5f%2D", b"/A~_-"),
    (b"/a%20b%c3%a4", b"/a%20b%C3%A4"),
    (b"/%25%32e", b"/%252e"),
    (b"/%252e%252e/", b"/%252e%252e/"),
    (b"/...", b"/..."),
    (b"/.a/..b/c..", b"/.a/..b/c.."),
    (b"/.../..", b"/"),
    (b"/a;x=1/b", b"/a;x=1/b"),
    (b"/...;x", b"/...;x"),
    (b"/a..;x", b"/a..;x"),
    (b"/a:b@c!$&'()*+,=|{}[]^`\"<>", b"/a:b@c!$&'()*+,=|{}[]^`\"<>"),
    (b"/%e2%82%ac", b"/%E2%82%AC"),
    (b"/%e4", b"/%E4"),
    (b"/%0a", b"/%0A"),
]


@pytest.mark.parametrize(("path", "expected"), NORMAL)
def test_item_57_a_path_has_one_form(path: bytes, expected: bytes) -> None:
    assert normalise(path) == expected
    assert normalise(expected) == expected
    assert ask(b"GET " + path + b"?q HTTP/1.1", b"Host: a")["path"] == expected


@pytest.mark.parametrize(
    "path",
    [
        b"", b"a", b"/..", b"/../a", b"/a/../..", b"/a/../../b", b"/%2e%2e", b"/.%2E/", b"/a/%2e%2e/%2e%2e/b", b"/%2f", b"/a%2Fb",
        b"/%5c", b"/a%5Cb", b"/%00", b"/a%00b", b"/\\", b"/a\\..\\b", b"/..;/a", b"/..;x=1/a", b"/.;/a", b"/a/.;", b"/%2e%2e;/a",
        b"/..%3b/a", b"/.%3Bx", b"/%", b"/%2", b"/%zz", b"/%2x", b"/%x2", b"/a%", b"/%%32e", b"/%u0041", b"/%c0%af", b"/%C1%9c",
        b"/%c0", b"/%e0%80%af", b"/%e0%9f%bf", b"/%f0%80%80%af", b"/%f0%8f%bf%bf", b"/%f8%80%80%80%af", b"/%fc%80%80%80%80%af",
        b"/a?b", b"/a b", b"/a\x80", b"/a\x00", b"/a#b",
    ],
)  # fmt: skip
def test_item_57_what_has_no_safe_form_is_refused(path: bytes) -> None:
    assert normalise(path) is None


def test_item_57_the_fault_of_a_request() -> None:
    assert fault(b"GET /a/../../b HTTP/1.1", b"Host: a") == "path"
    assert fault(b"GET /%2f?x HTTP/1.1", b"Host: a") == "path"
    assert fault(b"GET /a%2 HTTP/1.1", b"Host: a") == "path"
    assert fault(b"GET http://a/..;/ HTTP/1.1", b"Host: a") == "path"


def test_item_57_random_paths_are_safe_and_stable() -> None:
    rng = random.Random(57)
    pieces = [b"/", b"/", b".", b"..", b"%2e", b"%2E", b"a", b"b", b";", b"%41", b"%c3%a4", b"//", b"%25", b"%3b", b"x.y", b"~"]
    good = 0
    for _ in range(20_000):
        path = b"/" + b"".join(rng.choices(pieces, k=rng.randrange(12)))
        result = normalise(path)
        if result is None:
            continue
        good += 1
        assert normalise(result) == result
        assert len(result) <= len(path)
        segments = result.split(b"/")
        assert result.startswith(b"/") and b"." not in segments and b".." not in segments and b"//" not in result
    assert good > 5000


# Addresses


def test_ports() -> None:
    assert [read_port(text) for text in (b"1", b"80", b"65535")] == [1, 80, 65535]
    for text in (b"", b"0", b"00", b"080", b"65536", b"99999", b"123456", b"+1", b"-1", b" 1", b"1 ", b"1x", b"\xd9\xa1"):
        assert read_port(text) == 0


def test_addresses_against_the_standard_library() -> None:
    rng = random.Random(3)
    v4 = [b"1", b"0", b"255", b"256", b"01", b"", b".", b".", b".", b"a", b"9999"]
    v6 = [b":", b":", b"::", b"1", b"0", b"ffff", b"FFFF", b"12345", b"g", b"1.2.3.4", b"", b"%1"]
    texts = [b"1.2.3.4", b"0.0.0.0", b"255.255.255.255", b"::", b"::1", b"1::", b"1:2:3:4:5:6:7:8", b"1::3:4:5:6:7:8"]
    texts += [
        b"::2:3:4:5:6:7:8",
        b"1:2:3:4:5:6:7::",
        b"1:2:3:4:5:6:1.2.3.4",
        b"::1.2.3.4",
        b"1:2:3:4:5:6:7:1.2.3.4",
        b":::",
        b"1:::2",
    ]
    texts += [b".".join(rng.choices(v4, k=rng.randrange(3, 6))) for _ in range(3000)]
    texts += [b"".join(rng.choices(v6, k=rng.randrange(1, 16))) for _ in range(20_000)]
    texts += [b":".join(rng.choices(v6, k=rng.randrange(1, 10))) for _ in range(20_000)]
    right = 0
    for text in texts:
        for read, kind in ((read_ipv4, ipaddress.IPv4Address), (read_ipv6, ipaddress.IPv6Address)):
            try:
                expected = None if b"%" in text else kind(text.decode()).packed
            except ValueError:
                expected = None
            assert read(text) == expected, text
            right += expected is not None
    assert right > 100
