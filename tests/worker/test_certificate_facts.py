"""What backends are told about clients' certificates, whose authors may be as clever as they like."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pki import days

from gateway.worker.certificate_facts import MOST_BYTES, escape_token, forwarded_value, subject_text

KEY = ec.generate_private_key(ec.SECP256R1())


def der_of(name: x509.Name, *names: x509.GeneralName) -> bytes:
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key()).serial_number(1)
    builder = builder.not_valid_before(days(-1)).not_valid_after(days(1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def named(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def test_a_certificate_is_told_in_the_form_that_backends_know() -> None:
    der = der_of(
        named((NameOID.ORGANIZATION_NAME, "Example, Inc."), (NameOID.COMMON_NAME, "alice")),
        x509.UniformResourceIdentifier("spiffe://example/ns/a/sa/alice"),
        x509.DNSName("alice.example"),
        x509.DNSName("*.alice.example"),
        x509.IPAddress(__import__("ipaddress").ip_address("10.0.0.1")),
    )
    digest = hashlib.sha256(der).hexdigest()
    assert forwarded_value(der).decode() == (
        f'Hash={digest};Subject="CN=alice,O=Example\\, Inc.";URI=spiffe://example/ns/a/sa/alice;DNS=alice.example;DNS=*.alice.example'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('a";Hash=0;Subject="b', b"CN=a\\22\\;Hash\\=0\\;Subject\\=\\22b"),
        ("a\r\nX-Evil: 1", b"CN=a\\0D\\0AX-Evil: 1"),
        ("a\\", b"CN=a\\5C"),
        ("\u00fc", b"CN=\\C3\\BC"),
        ("a\0b\x7f", b"CN=a\\00b\\7F"),
        (" a ", b"CN=\\20a\\20"),
        ("#a", b"CN=\\23a"),
        (" ", b"CN=\\20"),
    ],
)
def test_nothing_in_a_name_ends_a_value_or_a_line(value: str, text: bytes) -> None:
    name = named((NameOID.COMMON_NAME, value))
    assert subject_text(name) == text
    told = forwarded_value(der_of(name))
    assert all(0x20 <= byte < 0x7F for byte in told) and told.count(b'"') == 2 and told.endswith(b'"')


def test_attributes_without_a_short_name_and_several_in_one_place_are_told() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4"), "x")]),
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "u")]
            ),
        ]
    )
    first, second = subject_text(name).split(b",")
    assert set(first.split(b"+")) == {b"CN=a", b"UID=u"} and second == b"1.2.3.4=x"


def test_names_outside_quotes_hold_nothing_that_separates() -> None:
    assert escape_token('a;DNS=b,c"d e\r\n\u00fc') == b"a%3BDNS%3Db%2Cc%22d%20e%0D%0A%C3%BC"
    told = forwarded_value(der_of(named(), x509.UniformResourceIdentifier("x://a;DNS=evil,Hash=0")))
    assert told.endswith(b'Subject="";URI=x://a%3BDNS%3Devil%2CHash%3D0')


def test_a_certificate_with_a_thousand_names_fits_a_head() -> None:
    told = forwarded_value(der_of(named(), *(x509.DNSName(f"host{number}.example") for number in range(1000))))
    assert MOST_BYTES - 40 < len(told) <= MOST_BYTES and told.count(b"DNS=") > 100


def test_what_cannot_be_read_is_told_by_its_hash_alone() -> None:
    assert forwarded_value(b"nonsense") == b"Hash=" + hashlib.sha256(b"nonsense").hexdigest().encode()
