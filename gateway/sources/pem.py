"""What stands in PEM files: certificate chains with their keys, authorities, revocation lists, OCSP responses. Bytes in, facts out.

A Refusal says why something cannot be used, a note what is odd about it. Neither ever holds anything of a private key.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from gateway.model.names import hostname_flaw, normal_hostname

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.S)
_LEAST_RSA = 2048


class Refusal(Exception):
    """Why the content of a file cannot be used. `key` is the key of the configuration that names the file."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate chain whose key is known to match."""

    pem: bytes
    """The pair's own certificate first, each next one the issuer of the one before; no root."""
    names: tuple[str, ...]
    """Hosts that it is for, in lower case."""
    kind: str
    """Of the key: EC, RSA, Ed25519, Ed448."""
    key: str
    """The key for people: RSA 2048, EC secp256r1."""
    subject: str
    issuer: str
    serial: str
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""
    not_before: datetime
    not_after: datetime
    """The nearest of the whole chain."""
    notes: tuple[tuple[str, str], ...]
    """(key of the configuration, what is odd). What depends on the time of day is not among them."""
    leaf: x509.Certificate = field(repr=False)
    must_staple: bool = False


@dataclass(frozen=True, slots=True)
class Bundle:
    """Authorities."""

    pem: bytes = field(repr=False)
    digest: str
    subjects: frozenset[bytes] = field(repr=False)
    """DER of their names."""
    issuers: frozenset[bytes] = field(repr=False)
    """DER of the names of who issued them: a root is its own."""
    not_after: datetime | None
    """When the first of them expires; None when nobody cares."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Revocation lists."""

    pem: bytes = field(repr=False)
    issuers: frozenset[bytes] = field(repr=False)
    """DER of the names of who issued them."""
    next_update: datetime | None
    """When the first of them is out of date."""


@dataclass(frozen=True, slots=True)
class Staple:
    """An OCSP response that says that the certificate is good."""

    der: bytes = field(repr=False)
    next_update: datetime | None


def read_chain(cert: bytes, key: bytes) -> Chain:
    """A pair. Raises Refusal."""
    certificates = _certificates("cert", cert)
    public = _public_bytes(key)
    own = [each for each in certificates if _public_of(each) == public]
    if not own:
        raise Refusal("key", "is not the key of the certificate")
    notes: list[tuple[str, str]] = []
    leaf = own[0]
    if certificates[0] is not leaf:
        notes.append(("cert", "the certificate of the key is not the first in its file; it is sent first"))
    chain = _ordered(leaf, certificates, notes)
    kind, shown = _key_words(leaf)
    for number, each in enumerate(chain):
        _note_weakness(each, "the certificate" if number == 0 else f"certificate {number + 1} of the chain", notes)
    names = _names_of(leaf, notes)
    _note_purpose(leaf, notes)
    return Chain(
        pem=b"".join(each.public_bytes(Encoding.PEM) for each in chain),
        names=names,
        kind=kind,
        key=shown,
        subject=leaf.subject.rfc4514_string(),
        issuer=leaf.issuer.rfc4514_string(),
        serial=f"{leaf.serial_number:x}",
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        not_before=leaf.not_valid_before_utc,
        not_after=min(each.not_valid_after_utc for each in chain),
        notes=tuple(notes),
        leaf=leaf,
        must_staple=_extension(leaf, ExtensionOID.TLS_FEATURE) is not None,
    )


def read_bundle(key: str, content: bytes) -> Bundle:
    """Authorities. Raises Refusal with this key."""
    certificates = _certificates(key, content)
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in dict.fromkeys(certificates))
    return Bundle(
        pem=pem,
        digest=hashlib.sha256(pem).hexdigest(),
        subjects=frozenset(each.subject.public_bytes() for each in certificates),
        issuers=frozenset(each.issuer.public_bytes() for each in certificates),
        not_after=min(each.not_valid_after_utc for each in certificates),
    )


def system_authorities(key: str, content: bytes) -> Bundle:
    """The authorities of the machine, as they are: what is odd about one of them is its vendor's business."""
    if b"-----BEGIN " not in content:
        raise Refusal(key, "holds no certificate in PEM")
    return Bundle(content, hashlib.sha256(content).hexdigest(), frozenset(), frozenset(), None)


def read_lists(key: str, content: bytes) -> Lists:
    """Revocation lists. Raises Refusal with this key."""
    blocks = _CRL.findall(content)
    if not blocks:
        raise Refusal(key, "holds no revocation list in PEM")
    lists = []
    for number, block in enumerate(blocks):
        try:
            lists.append(x509.load_pem_x509_crl(block))
        except ValueError:
            raise Refusal(key, f"revocation list {number + 1} cannot be read") from None
    nexts = [each.next_update_utc for each in lists if each.next_update_utc is not None]
    return Lists(
        pem=b"".join(each.public_bytes(Encoding.PEM) for each in lists),
        issuers=frozenset(each.issuer.public_bytes() for each in lists),
        next_update=min(nexts, default=None),
    )


def read_staple(key: str, content: bytes, chain: Chain) -> Staple:
    """An OCSP response for this chain. Raises Refusal, for one that does not say "good" too: nothing is stapled then."""
    try:
        response = ocsp.load_der_ocsp_response(content)
    except ValueError:
        raise Refusal(key, "is not an OCSP response in DER") from None
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Refusal(key, f"the responder did not answer: {response.response_status.name.lower()}")
    for single in response.responses:
        if single.serial_number != chain.leaf.serial_number:
            continue
        if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
            raise Refusal(key, f"says that the certificate is {single.certificate_status.name.lower()}")
        return Staple(content, single.next_update_utc)
    raise Refusal(key, "speaks of another certificate")


def _certificates(key: str, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, UnsupportedAlgorithm):
        what = "a certificate in it cannot be read" if b"-----BEGIN CERTIFICATE-----" in content else "holds no certificate in PEM"
        raise Refusal(key, what) from None


def _public_bytes(key: bytes) -> bytes:
    """The public half of a private key."""
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        raise Refusal("key", "is encrypted; a key without a passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        what = "the private key cannot be read" if b"PRIVATE KEY-----" in key else "holds no private key in PEM"
        raise Refusal("key", what) from None
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_of(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _ordered(leaf: x509.Certificate, given: list[x509.Certificate], notes: list[tuple[str, str]]) -> list[x509.Certificate]:
    """From the leaf from issuer to issuer. A root is not sent: who does not have it does not trust it."""
    chain = [leaf]
    rest = [each for each in dict.fromkeys(given) if each != leaf]
    while rest:
        issuer = next((each for each in rest if _issued(each, chain[-1])), None)
        if issuer is None:
            break
        rest.remove(issuer)
        if issuer.subject == issuer.issuer:
            break
        chain.append(issuer)
    roots = [each for each in rest if each.subject == each.issuer]
    if len(rest) > len(roots):
        notes.append(("cert", f"{len(rest) - len(roots)} certificates of the file are not of the chain and are not sent"))
    return chain


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _key_words(certificate: x509.Certificate) -> tuple[str, str]:
    """(kind, for people)."""
    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            return "RSA", f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey() as key:
            return "EC", f"EC {key.curve.name}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519", "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448", "Ed448"
    raise Refusal("cert", "has a key of a kind that TLS does not use")


def _note_weakness(certificate: x509.Certificate, what: str, notes: list[tuple[str, str]]) -> None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA:
        notes.append(("cert", f"{what} has an RSA key of {key.key_size} bits only"))
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return
    if isinstance(algorithm, hashes.SHA1 | hashes.MD5):
        notes.append(("cert", f"{what} is signed with {algorithm.name.upper()}"))


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_oid(oid).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _names_of(leaf: x509.Certificate, notes: list[tuple[str, str]]) -> tuple[str, ...]:
    """The hosts of subjectAltName; where there is none at all, the common name as a last resort."""
    alternative = _extension(leaf, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if isinstance(alternative, x509.SubjectAlternativeName):
        found = alternative.get_values_for_type(x509.DNSName)
    else:
        found = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        notes.append(("cert", "has no subjectAltName; clients of today refuse it"))
    return tuple(dict.fromkeys(normal_hostname(name) for name in found if hostname_flaw(name) is None))


def _note_purpose(leaf: x509.Certificate, notes: list[tuple[str, str]]) -> None:
    usage = _extension(leaf, ExtensionOID.EXTENDED_KEY_USAGE)
    if isinstance(usage, x509.ExtendedKeyUsage):
        wanted = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
        if not wanted & set(usage):
            notes.append(("cert", "is not for TLS: its extended key usage says otherwise"))


def day(moment: datetime) -> str:
    """For people: 2026-03-01 12:00 UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
