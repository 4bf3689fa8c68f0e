"""Certificates for tests: an authority, and files of what it issues."""

import datetime
import re
import warnings
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

NOW = datetime.datetime.now(datetime.UTC)


def days(count: float) -> datetime.datetime:
    """From now."""
    return NOW + datetime.timedelta(days=count)


class Authority:
    """An authority with its key at hand, so that it can revoke and answer too."""

    def __init__(self, name: str = "Test Authority", *, is_intermediate_of: "Authority | None" = None) -> None:
        parent = is_intermediate_of.ca if is_intermediate_of is not None else None
        self.ca = trustme.CA(parent_cert=parent, organization_name=name)
        self.pem = self.ca.cert_pem.bytes()
        self.certificate = x509.load_pem_x509_certificate(self.pem)
        key = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key

    def issue(self, *names: str, rsa: bool = False, **more: Any) -> trustme.LeafCert:
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        return self.ca.issue_cert(*names, key_type=kind, **more)

    def revoke(self, *leaves: trustme.LeafCert, next_update: datetime.datetime | None = None) -> bytes:
        """A revocation list, PEM."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(days(-2)).next_update(next_update or days(30))
        for leaf in leaves:
            entry = x509.RevokedCertificateBuilder().serial_number(leaf_of(leaf).serial_number).revocation_date(days(-1))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def answer(
        self, leaf: trustme.LeafCert, *, next_update: datetime.datetime | None = None, is_good: bool = True
    ) -> bytes:
        """An OCSP response, DER."""
        status = ocsp.OCSPCertStatus.GOOD if is_good else ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=leaf_of(leaf), issuer=self.certificate, algorithm=hashes.SHA256(), cert_status=status,
            this_update=days(-2), next_update=next_update or days(2),
            revocation_time=None if is_good else days(-1), revocation_reason=None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def leaf_of(leaf: trustme.LeafCert) -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


def chain_of(leaf: trustme.LeafCert) -> bytes:
    return b"".join(each.bytes() for each in leaf.cert_chain_pems)


def key_of(leaf: trustme.LeafCert) -> bytes:
    return leaf.private_key_pem.bytes()


def write_pair(directory: Path, name: str, leaf: trustme.LeafCert) -> None:
    """NAME.crt and NAME.key."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.crt").write_bytes(chain_of(leaf))
    (directory / f"{name}.key").write_bytes(key_of(leaf))


def write_files_for(text: str, directory: Path) -> None:
    """Good files for everything that a configuration names for TLS by a relative path."""
    authority = Authority()
    names = re.findall(r"\b(cert|key|ca|crl|ocsp): *([\w./-]+\.\w+)", text)
    hosts = re.findall(r"hostname: *\"?([\w.*-]+)", text) or ["example.com"]
    leaves: dict[str, trustme.LeafCert] = {}
    for kind, name in names:
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        own = f"{file.stem.removesuffix('-rsa')}.test"
        leaf = leaves.setdefault(file.stem, authority.issue(*dict.fromkeys((*hosts, own)), rsa="rsa" in name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = {
                "cert": lambda leaf=leaf: chain_of(leaf),
                "key": lambda leaf=leaf: key_of(leaf),
                "ca": lambda leaf=leaf: authority.pem,
                "crl": lambda leaf=leaf: authority.revoke(),
                "ocsp": lambda leaf=leaf: authority.answer(leaf),
            }[kind]()
        file.write_bytes(content)
