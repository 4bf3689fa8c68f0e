"""ClientHellos of real clients in every way TCP and TLS may cut them, and everything that is none."""

import contextlib
import ssl
import struct
from typing import Any

import pytest
from hellos import (
    alpn_list,
    build,
    build_message,
    large_hello,
    message_of,
    real_hello,
    records,
    server_name,
    versions,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from gateway._core.selftest import alert_record, is_http_instead, read_client_hello

GREASE = (0x0A0A, 0xFAFA)


def read(raw: bytes) -> dict[str, Any]:
    """The answer; every shorter input must want more, as must be said, and what follows must not matter."""
    answer = read_client_hello(raw)
    assert answer["used"] == len(raw), answer
    for n in range(len(raw)):
        short = read_client_hello(raw[:n])
        assert (short["fault"], short["used"]) == (None, 0), n
        assert n < short["wants"] <= len(raw), n
    assert read_client_hello(raw + b"\x17\x03\x03\x00\x05early") == answer
    return answer


def fault(raw: bytes) -> str | None:
    """The fault; every shorter input either wants more or has it already, and what follows does not mend it."""
    whole = read_client_hello(raw)
    for n in range(0, len(raw), 1 if len(raw) < 600 else 97):
        short = read_client_hello(raw[:n])
        assert short["used"] == 0 and short["fault"] in (None, whole["fault"]), n
    assert read_client_hello(raw + b"\x16\x03\x01\x00\x01\x01")["fault"] == whole["fault"]
    name: str | None = whole["fault"]
    return name


# ---- what real clients send ----


def test_a_hello_of_tls_1_3() -> None:
    answer = read(real_hello("A.Example", alpn=["h2", "http/1.1"]))
    assert (answer["name"], answer["tls13"], answer["legacy_version"]) == (b"a.example", True, 0x0303)
    assert (answer["alpn"], answer["h2"]) == (b"\x02h2\x08http/1.1", True)


def test_a_hello_of_tls_1_2() -> None:
    answer = read(real_hello(most=ssl.TLSVersion.TLSv1_2, alpn=["http/1.1"]))
    assert (answer["name"], answer["tls13"], answer["legacy_version"]) == (b"a.example", False, 0x0303)
    assert (answer["alpn"], answer["h2"]) == (b"\x08http/1.1", False)


def test_a_hello_without_a_name_and_without_alpn() -> None:
    for raw in (real_hello(None), large_hello(None), real_hello(None, most=ssl.TLSVersion.TLSv1_2)):
        answer = read(raw)
        assert (answer["name"], answer["alpn"], answer["h2"]) == (None, b"", False)


def test_a_hello_with_a_post_quantum_key_share() -> None:
    raw = large_hello(b"big.example", alpn=[b"h2"])
    assert len(raw) > 1500
    answer = read(raw)
    assert (answer["name"], answer["tls13"], answer["h2"]) == (b"big.example", True, True)


@pytest.mark.parametrize("make", [real_hello, large_hello])
def test_a_message_in_records_of_every_size(make: Any) -> None:
    message = message_of(make())
    whole = {**read_client_hello(records(message)), "used": 0}
    for size in (*range(1, 40), 100, 255, 256, 257, len(message) // 2, len(message) - 1):
        raw = records(message, [size] * (len(message) // size))
        answer = read_client_hello(raw)
        assert answer["used"] == len(raw), size
        assert {**answer, "used": 0} == whole


def test_a_message_in_two_records_cut_at_every_byte() -> None:
    message = message_of(real_hello())
    whole = {**read_client_hello(records(message)), "used": 0}
    for at in range(1, len(message)):
        raw = records(message, [at])
        assert read_client_hello(raw) == {**whole, "used": len(raw)}
        assert read_client_hello(raw[:-1])["fault"] is None


def test_records_and_reads_both_cut_small() -> None:
    read(records(message_of(real_hello()), [3, 1, 1, 40, 2]))
    read(records(build_message([server_name(b"a")]), [1] * 80))


def test_each_read_may_bring_only_what_is_wanted() -> None:
    for raw in (large_hello(), records(message_of(real_hello()), [1] * 20 + [7] * 20)):
        n = calls = 0
        while not (answer := read_client_hello(raw[:n]))["used"]:
            n, calls = answer["wants"], calls + 1
        assert n == len(raw) and calls <= 85


# ---- what may be in it ----


def test_a_hello_of_old_without_extensions() -> None:
    answer = read(records(build_message(None)))
    assert (answer["name"], answer["tls13"]) == (None, False)
    assert read(records(build_message([], version=0x0301, session=b"s" * 32)))["legacy_version"] == 0x0301


def test_grease_means_nothing() -> None:
    answer = read(
        build(
            (GREASE[0], b""),
            server_name(b"a.b"),
            versions(GREASE[1], 0x0304, 0x0303),
            (GREASE[1], b"\x00"),
            alpn_list(b"\xca\xca", b"h2"),
        )
    )
    assert (answer["name"], answer["tls13"], answer["alpn"]) == (b"a.b", True, b"\x02\xca\xca\x02h2")
    assert read(build(versions(GREASE[0], 0x0303)))["tls13"] is False


@pytest.mark.parametrize(
    "name",
    [b"a", b"A-1.eXample", b"_x.example", b"xn--bcher-kva.example", b"1.2.3.x", b".".join([b"x" * 63] * 3) + b"." + b"y" * 61],
)
def test_names(name: bytes) -> None:
    assert read(build(server_name(name)))["name"] == name.lower()


@pytest.mark.parametrize("literal", [b"192.0.2.1", b"2001:db8::1", b"::ffff:1.2.3.4"])
def test_an_address_is_no_name(literal: bytes) -> None:
    assert read(build(server_name(literal)))["name"] is None


@pytest.mark.parametrize(
    "name",
    [
        b"a.example.", b".", b".a", b"a..b", b"a b", b"a\x00.example", b"\xc3\xbc.example", b"a/b", b"a:443", b"*.example",
        b"x" * 64 + b".example", b"1.2.3.4.", b"a\nb", b"[::1]", b"%61", b".".join([b"x" * 63] * 3) + b"." + b"y" * 62,
        b"x." * 200 + b"x",
    ],
)  # fmt: skip
def test_what_is_no_host_name(name: bytes) -> None:
    assert fault(build(server_name(name))) == "tls_name"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00", b"\x00\x00", b"\x00\x03\x00\x00\x00", b"\x00\x04\x00\x00\x01", b"\x00\x03\x00\x00\x01a",
        b"\x00\x05\x00\x00\x01ab\x00",
        b"\x00\x04\x00\x00\x02a", b"\x00\x05\x00\x00\x01a\x00", b"\x00\x06\x00\x00\x01a\x00\x00", b"\x00\x05\x00\x00\x01a",
        b"\x00\x04\x00\xff\xffa",
        server_name(b"a.example", b"b.example")[1], server_name(b"a", b"a")[1], server_name(b"1.2.3.4", b"a")[1],
    ],
)  # fmt: skip
def test_server_name_malformed_or_with_two_names(content: bytes) -> None:
    assert fault(build((0, content))) == "tls_name"


def test_other_kinds_of_names_are_passed_over() -> None:
    other, host = server_name(b"\x00.", kind=9)[1][2:], server_name(b"A")[1][2:]
    for entries in (other + host, host + other, other + host + other):
        assert read(build((0, struct.pack("!H", len(entries)) + entries)))["name"] == b"a"
    assert read(build(server_name(b"a", kind=1)))["name"] is None


def test_alpn() -> None:
    assert read(build(alpn_list(b"h2c", b"h", b"h3")))["h2"] is False
    longest = alpn_list(b"x" * 255)
    assert read(build(longest))["alpn"] == longest[1][2:]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00\x00", b"\x00\x01\x00", b"\x00\x02\x00\x00", b"\x00\x03\x03h2", b"\x00\x04\x02h2\x00", b"\x00\x03\x02h2\x00",
        b"\x00\x04\x02h2", b"\x00\x04\x02h2\x05", alpn_list(b"x" * 254, b"y")[1],
    ],
)  # fmt: skip
def test_alpn_malformed_or_too_long(content: bytes) -> None:
    assert fault(build((16, content))) == "tls_alpn"


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x01\x03", b"\x03\x03\x04\x03", b"\x04\x03\x04", b"\x02\x03\x04\x00", b"\x00\x03\x04"]
)
def test_supported_versions_malformed(content: bytes) -> None:
    assert fault(build((43, content))) == "tls_extension"


def test_an_extension_twice() -> None:
    assert fault(build(server_name(b"a"), server_name(b"a"))) == "tls_extension"
    assert fault(build(server_name(b"a"), (0xFFCE, b""), (9, b"1"), (0xFFCE, b"2"))) == "tls_extension"
    assert fault(build((GREASE[0], b""), (GREASE[0], b""))) == "tls_extension"


def test_as_many_extensions_as_allowed() -> None:
    assert read_client_hello(build(*((1000 + i, b"") for i in range(127)), server_name(b"z")))["name"] == b"z"
    assert fault(build(*((1000 + i, b"") for i in range(129)))) == "tls_extension"


# ---- what is none ----


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 100])
def test_lengths_inside_that_say_too_much_or_too_little(n: int) -> None:
    """Every length byte of a hello is made larger or smaller: nothing but a fault may come of it."""
    good = build_message([versions(0x0304), server_name(b"a.example"), alpn_list(b"h2")], session=b"s" * 8)
    at_session, at_ciphers, at_compression, at_block = 38, 47, 53, 55
    ones = [(at_session, 1), (at_compression, 1)]
    for at, width in [*ones, *((at, 2) for at in (at_ciphers, *(at_block + i for i in (0, 4, 11, 13, 16))))]:
        value = int.from_bytes(good[at : at + width], "big")
        for wrong in {value + n, value - n} - {-1}:
            if 0 <= wrong < 256**width:
                bad = good[:at] + wrong.to_bytes(width, "big") + good[at + width :]
                assert fault(records(bad)) in ("tls_hello", "tls_name", "tls_alpn", "tls_extension"), (at, wrong)


def test_messages_that_contradict_themselves() -> None:
    wrong = [
        build_message([server_name(b"a")], behind=b"\x00"), build_message(None, behind=b"\x00"),
        build_message([], behind=b"\x00\x00"),
        build_message([], session=b"s" * 33), build_message([], ciphers=b""), build_message([], ciphers=b"\x13\x01\x13"),
        build_message([], compression=b""), build_message([], version=0x0200), build_message([], version=0xFEFD),
        b"\x01\x00\x00\x00", b"\x01\x00\x00\x22" + b"\x03\x03" + b"R" * 32, build_message(None)[:-1], build_message(None)[:-2],
    ]  # fmt: skip
    for message in wrong:
        message = message[:1] + (len(message) - 4).to_bytes(3, "big") + message[4:]
        assert fault(records(message)) == "tls_hello", message


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x00",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        b"\x16\x02\x00\x00\x10",
        b"\x16\xfe\xff",
        b"\x18\x03\x03",
        b"SSH-2.0",
    ],
)
def test_what_is_no_tls_is_known_at_once(raw: bytes) -> None:
    assert fault(raw) == "tls_not"


@pytest.mark.parametrize(
    "raw", [b"\x14\x03\x01\x00\x01\x01", b"\x15\x03\x01\x00\x02\x01\x00", b"\x17\x03\x03\x00\x05hello", b"\x16\x03\x01\x00\x00"]
)
def test_records_that_cannot_come_first(raw: bytes) -> None:
    assert fault(raw) == "tls_record"
    assert read_client_hello(raw)["alert"] == 10


@pytest.mark.parametrize(
    "between",
    [b"\x16\x03\x01\x00\x00", b"\x14\x03\x03\x00\x01\x01", b"\x15\x03\x01\x00\x02\x01\x00", b"\x16\x02\x00\x00\x01", b"GET "],
)
def test_records_that_cannot_come_between(between: bytes) -> None:
    message = message_of(real_hello())
    for cut in (1, 3, 4, 5, 200):
        assert fault(records(message[:cut]) + between + records(message[cut:])) == "tls_record"


def test_a_record_of_one_byte_too_many() -> None:
    message = build_message([(21, b"\x00" * 16000)])
    assert read_client_hello(records(message))["used"] == len(message) + 5
    answer = read_client_hello(b"\x16\x03\x01\x40\x01" + b"\x01")
    assert (answer["fault"], answer["alert"]) == ("tls_record_long", 22)
    assert fault(b"\x16\x03\x01\xff\xff") == "tls_record_long"


def test_a_message_of_one_byte_too_many() -> None:
    room = 16384 - len(build_message([(21, b"")])) + 4
    most = build_message([(21, b"\x00" * room)])
    assert read_client_hello(records(most, [9000]))["used"] == 16384 + 4 + 10
    assert fault(records(build_message([(21, b"\x00" * (room + 1))]), [9000])) == "tls_long"
    assert fault(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff") == "tls_long"


def test_records_so_small_that_their_heads_are_too_much() -> None:
    message = build_message([(21, b"\x00" * 5500)])
    assert fault(records(message, [1] * len(message))) == "tls_long"
    fits = build_message([(21, b"\x00" * 5300)])
    assert read_client_hello(records(fits, [1] * len(fits)))["used"] == 6 * len(fits)


def test_another_message_first_or_behind() -> None:
    assert fault(records(build_message([], kind=2))) == "tls_message"
    assert fault(records(b"\x00\x00\x00\x00")) == "tls_message"
    assert fault(records(build_message([]) + b"\x10")) == "tls_message"
    assert fault(records(build_message([]) * 2, [20])) == "tls_message"
    assert read_client_hello(records(build_message([], kind=2)))["alert"] == 10


# ---- beside it ----


def test_plain_http_on_a_tls_port_is_recognised() -> None:
    for raw in (b"GET / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1", b"M-SEARCH * HTTP/1.1", b"PRI * HTTP/2.0\r\n", b"A "):
        assert is_http_instead(raw)
    for raw in (b"", b"GET", b" / HTTP/1.1", b"get / HTTP/1.1", b"SSH-2.0-x y", b"\x16\x03\x01 ", b"X" * 30 + b" ", b"GET\t/"):
        assert not is_http_instead(raw)


def test_an_alert_is_one_that_clients_understand() -> None:
    assert alert_record(2, 112, 0x0303) == b"\x15\x03\x03\x00\x02\x02\x70"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unread, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(unread, sent, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    unread.write(alert_record(2, 112, 0x0301))
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.do_handshake()


# ---- nobody behind us may read another name ----


def openssl_name(raw: bytes) -> bytes | None:
    """The name that OpenSSL, as a server, takes out of the hello; b"" when it takes none, None when it does not come so far."""
    seen: list[bytes] = []
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tlsext_servername_callback(lambda connection: seen.append(connection.get_servername() or b""))
    server = SSL.Connection(context, None)
    server.set_accept_state()
    server.bio_write(raw)
    with contextlib.suppress(SSL.Error):
        server.do_handshake()
    return seen[0] if seen else None


SEEDS = [
    real_hello("name.example", alpn=["h2"]),
    large_hello(b"name.example"),
    real_hello("name.example", most=ssl.TLSVersion.TLSv1_2),
    real_hello(None),
    records(message_of(real_hello("name.example")), [5, 80]),
]


def test_openssl_reads_the_same_names() -> None:
    assert [openssl_name(raw) for raw in SEEDS] == [read_client_hello(raw)["name"] or b"" for raw in SEEDS]


@settings(deadline=None, max_examples=250)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 2000), st.one_of(st.binary(min_size=1, max_size=3), st.integers(1, 4))), min_size=1, max_size=4
    ),
)
def test_openssl_never_reads_another_name_than_ours(raw: bytes, edits: list[tuple[int, bytes | int]]) -> None:
    """Bytes overwritten or cut out; where both sides still find a hello, both find one name, or none."""
    changed = bytearray(raw)
    for at, edit in edits:
        at %= len(changed)
        if isinstance(edit, bytes):
            changed[at : at + len(edit)] = edit
        elif len(changed) > 10:
            del changed[at : at + edit]
    ours = read_client_hello(bytes(changed))
    theirs = openssl_name(bytes(changed))
    if ours["used"] and theirs is not None:
        assert theirs.lower() == (ours["name"] or b"")
    for n in range(0, len(changed), 61):
        assert read_client_hello(bytes(changed[:n]))["fault"] in (None, ours["fault"])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), st.sampled_from([b"name.example", b"b.example", b"a", b"x."])), max_size=3),
    st.booleans(),
)
def test_nor_out_of_lists_of_names(entries: list[tuple[int, bytes]], twice: bool) -> None:
    block = b"".join(struct.pack("!BH", kind, len(name)) + name for kind, name in entries)
    extension = (0, struct.pack("!H", len(block)) + block)
    raw = records(build_message([versions(0x0304), extension, *([extension] if twice else [])]))
    ours, theirs = read_client_hello(raw), openssl_name(raw)
    assert theirs is None or ours["fault"] or theirs.lower() == (ours["name"] or b"")
