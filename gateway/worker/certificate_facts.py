"""What a backend is told about a client's certificate: the value of X-Forwarded-Client-Cert, in Envoy's form.

    Hash=<sha256>;Subject="CN=alice,O=Example";URI=spiffe://example/alice;DNS=alice.example

The certificate was verified, and still its texts are what somebody wrote into it: nothing of them may end a value, a field or a
line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cryptography import x509

MOST_BYTES = 4096
"""Names beyond are left out: a certificate may carry thousands, and a backend's head has its limits."""

_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\')
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?#[]@!$&'()*+%")
_ESCAPED = frozenset(b",+<>;=")
_SHORT = {"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU",
          "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC"}  # fmt: skip


def forwarded_value(der: bytes) -> bytes:
    """Called by the core with the DER of a verified certificate, once a handshake. Never raises for what stands in it."""
    parts = [f"Hash={hashlib.sha256(der).hexdigest()}".encode()]
    length = len(parts[0])
    for part in _facts(der):
        length += len(part) + 1
        if length > MOST_BYTES:
            break
        parts.append(part)
    return b";".join(parts)


def _facts(der: bytes) -> Iterator[bytes]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        yield b'Subject="' + subject_text(certificate.subject) + b'"'
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError, TypeError):
        return
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        yield b"URI=" + escape_token(uri)
    for host in names.get_values_for_type(x509.DNSName):
        yield b"DNS=" + escape_token(host)


def subject_text(name: x509.Name) -> bytes:
    """RFC 4514, in ASCII. Quotes, backslashes and what is not printable are \\XX: no reader sees an end where none is."""
    parts = []
    for rdn in reversed(name.rdns):
        pairs = []
        for attribute in rdn:
            key = _SHORT.get(attribute.oid.dotted_string, attribute.oid.dotted_string)
            value = attribute.value.encode() if isinstance(attribute.value, str) else attribute.value
            pairs.append(key.encode() + b"=" + _escape(value))
        parts.append(b"+".join(pairs))
    return b",".join(parts)


def escape_token(text: str) -> bytes:
    """For a place without quotes: what is not safe there is %XX of its UTF-8."""
    return b"".join(bytes([byte]) if byte in _SAFE else b"%%%02X" % byte for byte in text.encode("utf-8", "surrogateescape"))


def _escape(value: bytes) -> bytes:
    text = b"".join(
        b"\\%c" % byte if byte in _ESCAPED else b"%c" % byte if byte in _PLAIN else b"\\%02X" % byte for byte in value
    )
    if text[:1] in (b" ", b"#"):
        text = b"\\%02X" % text[0] + text[1:]
    return text[:-1] + b"\\20" if len(text) > 1 and text.endswith(b" ") else text
