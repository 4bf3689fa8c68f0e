"""What an intermediary changes in a head that passes through it: RFC 9110 §7.6 and items 36 to 38, 45 and 48 of the checklist."""

import re
import uuid
from typing import Any

import pytest

from gateway._core.pathtest import forward

Fields = tuple[tuple[str, str], ...]
CLIENT = b"192.0.2.9"


def through(
    *fields: tuple[str, str], start: str = "GET / HTTP/1.1", host: str | None = "shop.test", **facts: Any
) -> dict[str, Any]:
    lines = [start, *([f"Host: {host}"] if host is not None else []), *(f"{name}: {value}" for name, value in fields)]
    return forward(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), **facts)


def values(seen: dict[str, Any], name: bytes) -> list[bytes]:
    return [value for found, value in seen["fields"] if found == name]


def xff(seen: dict[str, Any]) -> bytes:
    (value,) = values(seen, b"x-forwarded-for")
    assert isinstance(value, bytes)
    return value


# X-Forwarded-For


def test_without_trust_the_client_is_who_is_connected() -> None:
    seen = through(client=CLIENT)
    assert (xff(seen), seen["client"]) == (CLIENT, CLIENT)


@pytest.mark.parametrize("list_", ["10.0.0.1", "10.0.0.1, 10.0.0.2", "unknown", "", ",,,", "127.0.0.1, " * 200 + "::1"])
def test_item_48_a_list_from_a_stranger_is_forgotten(list_: str) -> None:
    seen = through(("X-Forwarded-For", list_), ("x-forwarded-for", "10.9.9.9"))
    assert (xff(seen), seen["client"]) == (CLIENT, CLIENT)


@pytest.mark.parametrize(
    ("hops", "want", "client"),
    [
        (1, b"10.0.0.3, 192.0.2.9", b"10.0.0.3"),
        (2, b"10.0.0.2, 10.0.0.3, 192.0.2.9", b"10.0.0.2"),
        (3, b"10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.9", b"10.0.0.1"),
        (4, b"10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.9", b"10.0.0.1"),
    ],
)
def test_each_trusted_hop_vouches_for_one_entry_from_the_right(hops: int, want: bytes, client: bytes) -> None:
    seen = through(("X-Forwarded-For", "10.0.0.1, 10.0.0.2, 10.0.0.3"), trusted_hops=hops)
    assert (xff(seen), seen["client"]) == (want, client)


def test_what_a_client_wrote_before_the_trusted_entries_is_hearsay() -> None:
    """One proxy in front: it appended its client to whatever that client had sent."""
    seen = through(("X-Forwarded-For", "127.0.0.1, 10.1.1.1, 203.0.113.5"), trusted_hops=1)
    assert seen["client"] == b"203.0.113.5"
    assert b"127.0.0.1" not in xff(seen) and b"10.1.1.1" not in xff(seen)


def test_several_lines_are_one_list_in_order() -> None:
    seen = through(("X-Forwarded-For", "10.0.0.1"), ("accept", "*/*"), ("x-forwarded-for", "10.0.0.2 ,\t10.0.0.3"), trusted_hops=2)
    assert (xff(seen), seen["client"]) == (b"10.0.0.2, 10.0.0.3, 192.0.2.9", b"10.0.0.2")


def test_empty_entries_are_none() -> None:
    seen = through(("X-Forwarded-For", " , 10.0.0.1, ,, \t"), trusted_hops=1)
    assert (xff(seen), seen["client"]) == (b"10.0.0.1, 192.0.2.9", b"10.0.0.1")


def test_a_trusted_hop_that_says_nothing_is_the_client_itself() -> None:
    for hops in (1, 2, 3):
        seen = through(trusted_hops=hops)
        assert (xff(seen), seen["client"]) == (CLIENT, CLIENT)


def test_a_long_list_keeps_its_last_entries() -> None:
    entries = [f"10.0.{number // 250}.{number % 250}" for number in range(600)]
    seen = through(("X-Forwarded-For", ", ".join(entries)), trusted_hops=3)
    assert xff(seen) == ", ".join([*entries[-3:], "192.0.2.9"]).encode()
    seen = through(("X-Forwarded-For", ", ".join(entries)), trusted_hops=100)
    assert xff(seen).split(b", ")[-2:] == [entries[-1].encode(), CLIENT]


def test_ipv6_and_unix_clients() -> None:
    assert xff(through(client=b"2001:db8::1")) == b"2001:db8::1"
    seen = through(client=b"")
    assert xff(seen) == b"" and seen["client"] == b""


# The other names that say where a request came from


def test_proto_and_host_are_those_of_the_connection() -> None:
    seen = through(host="shop.test:8443", secure=True)
    assert values(seen, b"x-forwarded-proto") == [b"https"]
    assert values(seen, b"x-forwarded-host") == [b"shop.test:8443"]
    assert values(through(), b"x-forwarded-proto") == [b"http"]


def test_the_port_is_the_one_that_the_client_is_connected_to() -> None:
    assert values(through(port=8080), b"x-forwarded-port") == [b"8080"]
    assert values(through(port=443, secure=True), b"x-forwarded-port") == [b"443"]
    assert values(through(("X-Forwarded-Port", "1")), b"x-forwarded-port") == [], "not known"
    for port in (1, 65535):
        assert values(through(("X-Forwarded-Port", "99"), port=port), b"x-forwarded-port") == [str(port).encode()]


def test_a_trusted_hop_tells_scheme_and_port_together() -> None:
    seen = through(("X-Forwarded-Proto", "https"), port=8080, trusted_hops=1)
    assert values(seen, b"x-forwarded-port") == [], "https on 8080 is what nobody asked for"
    seen = through(("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "8443"), port=8080, trusted_hops=1)
    assert values(seen, b"x-forwarded-port") == [b"8443"]
    seen = through(port=8080, trusted_hops=1)
    assert (values(seen, b"x-forwarded-proto"), values(seen, b"x-forwarded-port")) == ([b"http"], [b"8080"])


SPOOFED: Fields = (
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.test"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Prefix", "/admin"),
    ("X-Forwarded-Client-Cert", "Hash=00"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1"),
    ("X-Envoy-Internal", "true"),
    ("x-envoy-external-address", "127.0.0.1"),
)


def test_item_48_a_stranger_cannot_say_where_a_request_came_from() -> None:
    seen = through(*SPOOFED, *SPOOFED)
    assert values(seen, b"x-forwarded-proto") == [b"http"]
    assert values(seen, b"x-forwarded-host") == [b"shop.test"]
    for name in ("x-forwarded-port", "x-forwarded-prefix", "x-forwarded-client-cert", "x-real-ip", "forwarded"):
        assert values(seen, name.encode()) == [], name
    assert not [name for name, _ in seen["fields"] if name.startswith(b"x-envoy-")]
    sent = b"\n".join(value for _, value in seen["fields"])
    assert b"evil" not in sent and b"127.0.0.1" not in sent


def test_a_trusted_hop_is_believed() -> None:
    seen = through(*SPOOFED, trusted_hops=1)
    for name, value in SPOOFED:
        assert values(seen, name.lower().encode()) == [value.encode()], name


def test_names_that_only_look_alike_pass() -> None:
    fields = (("X-Envoy", "1"), ("X-Envoyage-Id", "2"), ("X-Forwarded-User", "3"), ("X-Real-IPs", "4"))
    seen = through(*fields)
    for name, value in fields:
        assert values(seen, name.lower().encode()) == [value.encode()]


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For", "X_Real_IP", "x_forwarded-proto", "X_Envoy_Internal"])
def test_item_48_underscored_doubles_do_not_pass(name: str) -> None:
    """Whatever the head's own rules make of them, an origin that maps _ to - never sees them."""
    try:
        seen = through((name, "127.0.0.1"))
    except ValueError as fault:
        assert str(fault) == "underscore"
    else:
        assert b"127.0.0.1" not in [value for _, value in seen["fields"]]


def test_a_request_for_no_host_has_no_forwarded_host() -> None:
    seen = through(start="GET / HTTP/1.0", host=None)
    assert values(seen, b"x-forwarded-host") == []


# Via and loops


def test_item_36_via_says_what_was_received() -> None:
    assert values(through(), b"via") == [b"1.1 isthmus"]
    assert values(through(start="GET / HTTP/1.0"), b"via") == [b"1.0 isthmus"]


def test_via_of_others_stays_before_ours() -> None:
    assert values(through(("Via", "1.0 fred, 1.1 p.example.net")), b"via") == [b"1.0 fred, 1.1 p.example.net", b"1.1 isthmus"]


def test_the_longest_pseudonym() -> None:
    node = b"n" * 64
    assert values(through(node=node), b"via") == [b"1.1 " + node]


def test_item_38_a_request_that_goes_in_circles_is_refused() -> None:
    for times in range(12):
        for sent in (("Via", ", ".join(["1.1 isthmus"] * times)),), tuple(("Via", "1.1 isthmus") for _ in range(times)):
            fields = sent if times else ()
            assert through(*fields)["fault"] == ("loop" if times >= 8 else None)


def test_other_names_in_via_are_no_loop() -> None:
    for other in ("1.1 isthmus2", "1.1 my-isthmus", "1.1 isthmus.example", "1.1isthmus"):
        assert through(("Via", ", ".join([other] * 20)))["fault"] is None
    assert through(("Via", ",".join(["1.1 isthmus (comment)"] * 8)))["fault"] == "loop"


# Max-Forwards


@pytest.mark.parametrize(("sent", "want"), [("1", b"0"), ("10", b"9"), ("100", b"99"), ("999999999", b"999999998"), ("007", b"6")])
def test_item_37_max_forwards_counts_down(sent: str, want: bytes) -> None:
    seen = through(("Max-Forwards", sent), start="OPTIONS /x HTTP/1.1")
    assert (values(seen, b"max-forwards"), seen["answer_here"]) == ([want], False)


def test_item_37_at_zero_this_hop_answers() -> None:
    seen = through(("Max-Forwards", "0"), start="OPTIONS /x HTTP/1.1")
    assert seen["answer_here"] and seen["fault"] is None


@pytest.mark.parametrize("sent", ["", "-1", "+1", "1.0", "0x1", "1 2", "10000000000", "ten"])
def test_item_37_what_is_no_number_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match="max_forwards"):
        through(("Max-Forwards", sent), start="OPTIONS /x HTTP/1.1")


def test_max_forwards_means_nothing_to_other_methods() -> None:
    for sent in ("0", "5", "ten"):
        seen = through(("Max-Forwards", sent))
        assert (values(seen, b"max-forwards"), seen["answer_here"], seen["fault"]) == ([sent.encode()], False, None)


# Request ids


@pytest.mark.parametrize("sent", ["a", "abc-1", "f" * 128, "1-67891233-abcdef012345678912345678", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~"])
def test_a_request_id_is_kept(sent: str) -> None:
    seen = through(("X-Request-ID", sent))
    assert (values(seen, b"x-request-id"), seen["request_id"]) == ([sent.encode()], sent.encode())


@pytest.mark.parametrize("sent", ["", "f" * 129, "a b", 'a"b', "a\\b", "caf\xe9", "a\tb"])
def test_a_request_id_that_could_harm_a_log_is_replaced(sent: str) -> None:
    seen = through(("X-Request-ID", sent))
    (made,) = values(seen, b"x-request-id")
    assert made == seen["request_id"] != sent.encode("latin-1")
    assert uuid.UUID(made.decode()).version == 4


def test_two_request_ids_are_none() -> None:
    seen = through(("X-Request-ID", "one"), ("x-request-id", "two"))
    (made,) = values(seen, b"x-request-id")
    assert made not in (b"one", b"two") and len(made) == 36


@pytest.mark.parametrize(("high", "low"), [(0, 0), (2**64 - 1, 2**64 - 1), (0x0123456789ABCDEF, 0xFEDCBA9876543210)])
def test_a_made_request_id_is_a_uuid_of_version_4(high: int, low: int) -> None:
    """RFC 9562 §5.4."""
    made = through(random_hi=high, random_lo=low)["request_id"].decode()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
    assert uuid.UUID(made).variant == uuid.RFC_4122


def test_a_made_request_id_has_122_random_bits() -> None:
    ids = {through(random_hi=1 << bit)["request_id"] for bit in range(64)}
    ids |= {through(random_lo=1 << bit)["request_id"] for bit in range(64)}
    assert len(ids) == 122 + 1, "and those of version and variant change nothing"


# Hop-by-hop leftovers and order


def test_item_45_http2_settings_do_not_pass() -> None:
    seen = through(("HTTP2-Settings", "AAMAAABk"), ("http2-settings", "AA"))
    assert values(seen, b"http2-settings") == []


def test_item_39_everything_else_keeps_its_order() -> None:
    fields = (("b", "1"), ("a", "2"), ("b", "3"), ("cookie", "x"), ("a", "4"))
    seen = through(*fields)
    ours = {b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"via"}
    assert [row for row in seen["fields"] if row[0] not in ours] == [(name.encode(), value.encode()) for name, value in fields]
