"""TLS for the bench: one certificate for every gateway, one offer for every client, and a look at what they agreed on.

The clients decide the terms: they offer one version, one cipher and one group, so that no gateway wins by choosing a cheaper one.
wrk, `openssl` and shakes.py read them from a file that OPENSSL_CONF names; h2load takes them as options.
"""

import datetime
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from perf.machine import find_tool

HOST = "bench.test"
CONF = f"""openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = clients
[clients]
MinProtocol = {(VERSION := "TLSv1.3")}
Ciphersuites = {(CIPHER := "TLS_AES_128_GCM_SHA256")}
Groups = {(GROUP := "X25519")}
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a client and a gateway agreed on in a full handshake."""

    version: str
    cipher: str
    group: str
    signature: str
    key_bits: int

    def __str__(self) -> str:
        return f"{self.version}, {self.cipher}, {self.group}, {self.signature} {self.key_bits} bits"


WANTED = Terms(VERSION, CIPHER, GROUP, "ECDSA", 256)


def make_certificate(run: Path) -> None:
    """tls.crt, tls.key, and both in tls.pem, as HAProxy wants them; once in a run."""
    if (run / "tls.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (run / "tls.crt").write_bytes(shown)
    (run / "tls.key").write_bytes(secret)
    (run / "tls.pem").write_bytes(shown + secret)


def client_environment(run: Path) -> dict[str, str]:
    """Environment of a client that offers the terms of this bench and nothing else."""
    conf = run / "client.cnf"
    if not conf.exists():
        conf.write_text(CONF)
    return {**os.environ, "OPENSSL_CONF": str(conf)}


def parse_terms(text: str) -> Terms:
    """Reads the report of `openssl s_client`. ValueError when no handshake came about."""
    found = re.search(r"^New, (\S+), Cipher is (\S+)$", text, re.M)
    group = re.search(r"^Server Temp Key: ([^,\s]+)", text, re.M) or re.search(r"^Negotiated TLS1\.3 group: (\S+)", text, re.M)
    signature = re.search(r"^Peer signature type: (\w+)", text, re.M)
    bits = re.search(r"^Server public key is (\d+) bit", text, re.M)
    if not (found and group and signature and bits) or found.group(2) == "(NONE)":
        raise ValueError(f"no handshake: {text.strip()[-300:]!r}")
    # OpenSSL 3.2 and later name the scheme (ecdsa_secp256r1_sha256), earlier ones the kind of key
    kind = signature.group(1).partition("_")[0].upper()
    return Terms(found.group(1), found.group(2), group.group(1).upper(), kind, int(bits.group(1)))


def agree(run: Path, port: int) -> Terms:
    """The terms of a full handshake with the offer of this bench."""
    openssl = find_tool("openssl")
    if openssl is None:
        raise RuntimeError("openssl is missing")
    argv = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST, "-CAfile", str(run / "tls.crt")]
    done = subprocess.run(argv, input="", capture_output=True, text=True, timeout=20, check=False, env=client_environment(run))
    return parse_terms(done.stdout + done.stderr)
