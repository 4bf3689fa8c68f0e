"""What stands in PEM files, good and bad."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pki import Authority, chain_of, days, key_of, leaf_of

from gateway.sources.pem import Refusal, read_bundle, read_chain, read_lists, read_staple, system_authorities

AUTHORITY = Authority()
LEAF = AUTHORITY.issue("A.test", "*.b.test")


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def self_made(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *extensions: x509.ExtensionType, common_name: str = "cn.test"
) -> tuple[bytes, bytes]:
    """(certificate, key) that signed itself, with nothing that is not asked for."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(days(-1)).not_valid_after(days(90))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem_of(builder.sign(key, hashes.SHA256())), text


def test_a_pair_says_what_it_is_for() -> None:
    chain = read_chain(chain_of(LEAF), key_of(LEAF))
    assert chain.names == ("a.test", "*.b.test") and (chain.kind, chain.key) == ("EC", "EC secp256r1")
    assert chain.fingerprint == leaf_of(LEAF).fingerprint(hashes.SHA256()).hex()
    assert chain.not_before <= datetime.datetime.now(datetime.UTC) <= chain.not_after
    assert "trustme" in chain.subject and "Test Authority" in chain.issuer and chain.notes == ()


def test_a_root_is_not_sent_and_the_chain_is_put_in_order() -> None:
    middle = Authority("Middle", is_intermediate_of=AUTHORITY)
    leaf = middle.issue("c.test")
    own = leaf_of(leaf)
    other = Authority("Other").certificate
    right = pem_of(own, middle.certificate)
    for given, odd in (
        (pem_of(own, middle.certificate), 0),
        (pem_of(own, middle.certificate, AUTHORITY.certificate), 0),
        (pem_of(AUTHORITY.certificate, middle.certificate, own), 1),
        (pem_of(own, own, other, middle.certificate), 0),
        (pem_of(own, leaf_of(LEAF), middle.certificate), 1),
    ):
        chain = read_chain(given, key_of(leaf))
        assert chain.pem == right and len(chain.notes) == odd, chain.notes


def test_words_around_the_blocks_and_a_key_among_the_certificates_are_not_sent() -> None:
    chain = read_chain(b"subject: me\n" + key_of(LEAF) + b"\n" + chain_of(LEAF), b"# key\n" + key_of(LEAF))
    assert chain.pem == pem_of(leaf_of(LEAF))


@pytest.mark.parametrize(
    ("cert", "key", "where", "says"),
    [
        (b"", key_of(LEAF), "cert", "holds no certificate in PEM"),
        (key_of(LEAF), key_of(LEAF), "cert", "holds no certificate in PEM"),
        (chain_of(LEAF)[:-80], key_of(LEAF), "cert", "cannot be read|holds no certificate"),
        (chain_of(LEAF), b"", "key", "holds no private key in PEM"),
        (chain_of(LEAF), chain_of(LEAF), "key", "holds no private key in PEM"),
        (chain_of(LEAF), key_of(LEAF)[:-80], "key", "the private key cannot be read"),
        (chain_of(LEAF), key_of(AUTHORITY.issue("a.test")), "key", "is not the key of the certificate"),
    ],
)
def test_a_bad_pair_is_refused_and_the_key_to_blame_is_named(cert: bytes, key: bytes, where: str, says: str) -> None:
    with pytest.raises(Refusal, match=says) as refusal:
        read_chain(cert, key)
    assert refusal.value.key == where


def test_an_encrypted_key_is_told_apart() -> None:
    private = serialization.load_pem_private_key(key_of(LEAF), None)
    locked = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass")
    )
    with pytest.raises(Refusal, match="is encrypted; a key without a passphrase is needed"):
        read_chain(chain_of(LEAF), locked)


def test_the_common_name_is_the_last_resort() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    old = read_chain(*self_made(key))
    assert old.names == ("cn.test",) and "no subjectAltName" in old.notes[0][1]
    other = read_chain(*self_made(key, x509.SubjectAlternativeName([x509.DNSName("san.test")])))
    assert other.names == ("san.test",)
    assert read_chain(*self_made(key, common_name="Not a host")).names == ()
    address = x509.SubjectAlternativeName([x509.RFC822Name("a@b.test"), x509.DNSName("*.*.test"), x509.DNSName("10.0.0.1")])
    assert read_chain(*self_made(key, address)).names == ()


def test_weakness_and_a_wrong_purpose_are_noted() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("san.test")])
    weak = read_chain(*self_made(rsa.generate_private_key(65537, 1024), names))
    assert weak.key == "RSA 1024" and [text for _, text in weak.notes] == ["the certificate has an RSA key of 1024 bits only"]
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING])
    code = read_chain(*self_made(ec.generate_private_key(ec.SECP256R1()), names, usage))
    assert "extended key usage" in code.notes[0][1]
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    assert read_chain(*self_made(ec.generate_private_key(ec.SECP256R1()), names, feature)).must_staple


def test_a_bundle_is_what_it_holds_whatever_stands_around_it() -> None:
    other = Authority("Other")
    one = read_bundle("ca", AUTHORITY.pem + other.pem)
    same = read_bundle("ca", b"# ours\n" + AUTHORITY.pem + b"\n\n" + other.pem + other.pem)
    assert one.digest == same.digest and one.digest != read_bundle("ca", other.pem).digest
    assert one.subjects == one.issuers and len(one.subjects) == 2
    with pytest.raises(Refusal, match="holds no certificate") as refusal:
        read_bundle("ca", b"nothing")
    assert refusal.value.key == "ca"
    assert system_authorities("ca", AUTHORITY.pem).pem == AUTHORITY.pem
    with pytest.raises(Refusal, match="holds no certificate"):
        system_authorities("ca", b"")


def test_revocation_lists_of_several_authorities_stand_in_one_file() -> None:
    other = Authority("Other")
    lists = read_lists("crl", AUTHORITY.revoke(next_update=days(3)) + b"\n" + other.revoke(next_update=days(2)))
    assert len(lists.issuers) == 2 and lists.pem.count(b"BEGIN X509 CRL") == 2
    assert lists.next_update is not None and abs(lists.next_update - days(2)) < datetime.timedelta(seconds=2)
    for content, says in ((b"", "no revocation list"), (AUTHORITY.pem, "no revocation list"), (bad_list(), "list 1 cannot")):
        with pytest.raises(Refusal, match=says):
            read_lists("crl", content)


def bad_list() -> bytes:
    return b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"


def test_a_response_is_stapled_only_when_it_says_good_about_this_very_certificate() -> None:
    chain = read_chain(chain_of(LEAF), key_of(LEAF))
    der = AUTHORITY.answer(LEAF)
    assert read_staple("ocsp", der, chain).der == der
    for content, says in (
        (b"", "not an OCSP response"),
        (AUTHORITY.answer(AUTHORITY.issue("a.test")), "another certificate"),
        (AUTHORITY.answer(LEAF, is_good=False), "says that the certificate is revoked"),
    ):
        with pytest.raises(Refusal, match=says):
            read_staple("ocsp", content, chain)


def test_nothing_that_is_printed_holds_a_key() -> None:
    chain = read_chain(chain_of(LEAF), key_of(LEAF))
    secret = key_of(LEAF).splitlines()[1].decode()
    assert secret not in repr(chain) and secret.encode() not in chain.pem


