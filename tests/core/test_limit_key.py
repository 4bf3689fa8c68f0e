"""Whose request it is: SipHash against its published results, parts that cannot be mistaken for each other, addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._core.limit_key import key_of, siphash, subject_of

HEADER, COOKIE, QUERY, CLIENT, HOST, PATH, METHOD, ROUTE, SUBJECT, CONSTANT = range(1, 11)
K0, K1 = 0x0706050403020100, 0x0F0E0D0C0B0A0908


@pytest.mark.parametrize(
    ("n", "digest"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (3, "9c70b60c5267a94e5f33b6b02985ed51"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
    ],
)
def test_the_hash_is_siphash_with_128_bits(n: int, digest: str) -> None:
    """vectors_sip128 of the reference code."""
    assert siphash(bytes(range(n)), K0, K1).hex() == digest


@given(st.lists(st.tuples(st.integers(1, 10), st.none() | st.binary(max_size=20)), max_size=4), st.integers(0, 2**64 - 1))
def test_no_two_lists_of_parts_are_one_key(parts: list[tuple[int, bytes | None]], limit: int) -> None:
    key = key_of(limit, parts)
    assert key == key_of(limit, parts)
    assert key[0] != 0
    assert key != key_of(limit ^ 1, parts)
    assert key != key_of(limit, [*parts, (HEADER, b"")])
    assert key_of(limit, [*parts, (HEADER, b"")]) != key_of(limit, [*parts, (HEADER, None)])
    assert key_of(limit, [(HEADER, b"ab"), (HEADER, b"c")]) != key_of(limit, [(HEADER, b"a"), (HEADER, b"bc")])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.1:8080"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8::1", "2001:DB8:0:0:ffff::9"),
        ("2001:db8::1", "[2001:db8::2]:443"),
        ("2001:db8::1", "[2001:db8::2]"),
    ],
)
def test_an_address_is_one_client_however_it_is_written(one: str, other: str) -> None:
    assert key_of(7, [(CLIENT, one.encode())]) == key_of(7, [(CLIENT, other.encode())])


def test_other_addresses_and_texts_that_are_none_are_others() -> None:
    texts = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "::1", "unknown", "", "_hidden", "1.2.3", "x" * 300]
    assert len({key_of(7, [(CLIENT, text.encode())]) for text in texts}) == len(texts)


@given(st.binary(max_size=60))
def test_any_text_may_stand_for_an_address(text: bytes) -> None:
    assert key_of(1, [(CLIENT, text)]) == key_of(1, [(CLIENT, text)])


@pytest.mark.parametrize(
    ("element", "name"),
    [
        (b"Hash=ab;URI=spiffe://a/b;DNS=a.b", b"spiffe://a/b"),
        (b"Hash=ab;DNS=a.b;DNS=c.d", b"a.b"),
        (b"DNS=a.b;URI=spiffe://x", b"spiffe://x"),
        (b'Subject="CN=x;URI=spiffe://forged";DNS=a.b', b"a.b"),
        (b'Subject="CN=\\";URI=spiffe://forged";DNS=a.b', b"a.b"),
        (b"Hash=ab", None),
        (b'Subject="', None),
        (b'Subject="\\', None),
        (b"URI=", None),
        (b"", None),
    ],
)
def test_a_certificate_has_its_first_uri_or_name(element: bytes, name: bytes | None) -> None:
    assert subject_of(element) == name
