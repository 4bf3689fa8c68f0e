"""ClientHellos: as real clients send them, and built by hand where no client would."""

import ssl
import struct
from collections.abc import Iterable, Sequence

from OpenSSL import SSL

Extension = tuple[int, bytes]


def real_hello(
    name: str | None = "a.example",
    *,
    alpn: Sequence[str] = (),
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """What Python's OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = most
    if alpn:
        context.set_alpn_protocols(alpn)
    unread, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(unread, sent, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("no handshake ends after its first message")


def large_hello(name: bytes | None = b"a.example", *, alpn: Sequence[bytes] = ()) -> bytes:
    """What the OpenSSL of cryptography sends: it has a post-quantum key share, so more than a TCP segment takes."""
    context = SSL.Context(SSL.TLS_METHOD)
    if alpn:
        context.set_alpn_protos(list(alpn))
    client = SSL.Connection(context, None)
    client.set_connect_state()
    if name is not None:
        client.set_tlsext_host_name(name)
    try:
        client.do_handshake()
    except SSL.WantReadError:
        return client.bio_read(1 << 16)
    raise AssertionError("no handshake ends after its first message")


def records(message: bytes, sizes: Iterable[int] | None = None, *, version: int = 0x0301) -> bytes:
    """The handshake message in records of these sizes; what they leave over comes in a last one."""
    out, at = [], 0
    for size in [*(sizes or ()), len(message)]:
        part = message[at : at + size]
        if part:
            out.append(struct.pack("!BHH", 22, version, len(part)) + part)
        at += size
    return b"".join(out)


def message_of(raw: bytes) -> bytes:
    """The handshake message of a hello in one record."""
    assert len(raw) == 5 + struct.unpack_from("!H", raw, 3)[0]
    return raw[5:]


def server_name(*names: bytes, kind: int = 0) -> Extension:
    entries = b"".join(struct.pack("!BH", kind, len(name)) + name for name in names)
    return 0, struct.pack("!H", len(entries)) + entries


def alpn_list(*names: bytes) -> Extension:
    entries = b"".join(bytes([len(name)]) + name for name in names)
    return 16, struct.pack("!H", len(entries)) + entries


def versions(*numbers: int) -> Extension:
    entries = b"".join(struct.pack("!H", number) for number in numbers)
    return 43, bytes([len(entries)]) + entries


def build_message(
    extensions: Iterable[Extension] | None,
    *,
    version: int = 0x0303,
    session: bytes = b"",
    ciphers: bytes = b"\x13\x01\x13\x02",
    compression: bytes = b"\x00",
    behind: bytes = b"",
    kind: int = 1,
) -> bytes:
    body = struct.pack("!H", version) + b"R" * 32 + bytes([len(session)]) + session + struct.pack("!H", len(ciphers)) + ciphers
    body += bytes([len(compression)]) + compression
    if extensions is not None:
        block = b"".join(struct.pack("!HH", number, len(content)) + content for number, content in extensions)
        body += struct.pack("!H", len(block)) + block
    body += behind
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def build(*extensions: Extension) -> bytes:
    return records(build_message(extensions))
