"""PEM -> contexts of pyOpenSSL: the one place that says which versions, ciphers and groups are spoken, and how others are verified.

A worker makes its contexts here, and the load step of the supervisor tries what it has read, so that what a worker gets is what
OpenSSL takes. PEM gets to OpenSSL through memory files: that is the way to load a chain for each kind of key, and no key is ever a
Python object of more than its text.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from gateway.supervisor.ipc import Pair, ServerSide

# TLS 1.2: forward secrecy and authenticated encryption only, ECDSA before RSA where a listener has both.
CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# OpenSSL's own set, AES-128 first: with it a handshake costs a quarter less CPU, most of it SHA-256 in the place of SHA-384.
SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# The hybrid first: who offers it wants it, and it costs a tenth of a handshake. An older OpenSSL does not know it.
# The stars are key shares that a client sends: with the hybrid's alone every endpoint that lacks it would ask for another hello.
GROUPS = (b"*X25519MLKEM768:*X25519:P-256:P-384", b"X25519:P-256:P-384")
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# A client that asks for ChaCha20 first has no AES in hardware, so its wish goes before our order.
PRIORITIZE_CHACHA = 1 << 21
SESSION_SECONDS = 7200
SESSION_ID = b"isthmus"

PARTIAL_CHAIN = 0x80000
CRL_CHECK = 0x4
CRL_CHECK_ALL = 0x8

Staples = list[tuple[int, bytes]]
"""Address of a certificate in a context, and the OCSP response to staple to it."""
Named = tuple[tuple[str, ...], SSL.Context, Staples]


def server_contexts(side: ServerSide, authorities: bytes) -> Iterator[Callable[[], Named]]:
    """Makers of a listener's contexts, each with its names and the OCSP responses to staple; the first is the default.

    A maker takes a millisecond or so, so that a loop can turn between two. It raises SSL.Error for what OpenSSL does not take.
    authorities: PEM of those who may have signed clients' certificates.
    """
    for names, pairs in arrange(side.pairs):
        yield functools.partial(_named, names, side, pairs, authorities)


def _named(names: tuple[str, ...], side: ServerSide, pairs: tuple[Pair, ...], authorities: bytes) -> Named:
    context, staples = _server_context(side, pairs, authorities)
    return names, context, staples


def arrange(pairs: Sequence[Pair]) -> list[tuple[tuple[str, ...], tuple[Pair, ...]]]:
    """Which pairs are shown together for which names: one of each kind of key. The first entry is the default.

    For a name the pairs that carry it come first, then those whose wildcard covers it; of one kind the first in order.
    """
    shown: dict[tuple[int, ...], list[str]] = {}
    for name in dict.fromkeys(name for pair in pairs for name in pair.names):
        wildcard = "*." + name.partition(".")[2]
        kinds: dict[str, int] = {}
        for wanted in (name, wildcard):
            for number, pair in enumerate(pairs):
                if wanted in pair.names:
                    kinds.setdefault(pair.kind, number)
        shown.setdefault(tuple(sorted(kinds.values())), []).append(name)
    first = next((together for together in shown if together[0] == 0), (0,))
    order = [first, *(together for together in shown if together != first)]
    return [(tuple(shown.get(together, ())), tuple(pairs[number] for number in together)) for together in order]


def _server_context(side: ServerSide, pairs: Sequence[Pair], authorities: bytes) -> tuple[SSL.Context, Staples]:
    context = _context(SSL.TLS_SERVER_METHOD, side.min_version)
    options = SSL.OP_CIPHER_SERVER_PREFERENCE | PRIORITIZE_CHACHA
    # Whose certificate fails and is let in all the same is verified again with every connection: a session keeps only the last word
    # of a verification, which is not the whole of it where each failure is passed over.
    context.set_options(options if side.tickets and not side.lets_through else options | SSL.OP_NO_TICKET)
    # Tickets alone: a cache would keep tens of thousands of sessions for each context, in each worker.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(SESSION_ID)
    context.set_timeout(SESSION_SECONDS)
    staples: Staples = []
    for pair in pairs:
        _use_pair(context, pair)
        if pair.ocsp:
            staples.append((_certificate_of(context), pair.ocsp))
    if side.ca:
        mode = SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE
        context.set_verify(mode | SSL.VERIFY_FAIL_IF_NO_PEER_CERT if side.requires else mode)
        context.set_verify_depth(side.depth)
        _trust(context, authorities, side.crl, side.crl_for_all)
        with _memory_file(authorities) as path:
            context.load_client_ca(path.encode())
    return context, staples


def client_context(authorities: bytes, pair: Pair | None, crl: bytes = b"", crl_for_all: bool = False) -> SSL.Context:
    """How endpoints are spoken to; always verifies. Raises SSL.Error for what OpenSSL does not take."""
    context = _context(SSL.TLS_CLIENT_METHOD, "1.2")
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT | SSL.SESS_CACHE_NO_INTERNAL)
    context.set_verify(SSL.VERIFY_PEER)
    _trust(context, authorities, crl, crl_for_all)
    if pair is not None:
        _use_pair(context, pair)
    return context


def address_of(context: SSL.Context) -> int:
    """Of the SSL_CTX, for the core."""
    return int(_openssl.ffi.cast("uintptr_t", context._context))


def reason_of(error: SSL.Error) -> str:
    """What OpenSSL says, without names of functions and without anything of what it was given."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(dict.fromkeys(str(entry[-1]) for entry in entries if entry)) or "OpenSSL does not say why"


def _context(method: int, min_version: str) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(VERSIONS[min_version])
    context.set_options(SSL.OP_NO_COMPRESSION | _openssl.lib.SSL_OP_NO_RENEGOTIATION)
    context.set_cipher_list(CIPHERS)
    context.set_tls13_ciphersuites(SUITES)
    for groups in GROUPS:
        if _openssl.lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:
            break
        _openssl.lib.ERR_clear_error()
    return context


def _use_pair(context: SSL.Context, pair: Pair) -> None:
    with _memory_file(pair.chain) as path:
        context.use_certificate_chain_file(path)
    with _memory_file(pair.key) as path:
        context.use_privatekey_file(path)


def _certificate_of(context: SSL.Context) -> int:
    """Address of the certificate that the context was given last: in a handshake that shows it, it is the connection's too."""
    # Not a Connection of pyOpenSSL, after which the context would take no further pair.
    connection = _openssl.lib.SSL_new(context._context)
    try:
        return int(_openssl.ffi.cast("uintptr_t", _openssl.lib.SSL_get_certificate(connection)))
    finally:
        _openssl.lib.SSL_free(connection)


def _trust(context: SSL.Context, authorities: bytes, crl: bytes, crl_for_all: bool) -> None:
    """Whoever stands in the bundle is trusted, whether a root or not; with lists, unless a list names the certificate shown."""
    flags = PARTIAL_CHAIN
    if crl:
        flags |= CRL_CHECK | CRL_CHECK_ALL if crl_for_all else CRL_CHECK
    with _memory_file(authorities + crl) as path:
        context.load_verify_locations(path)
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(flags)


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """A path to this content that never was on a disk and is gone afterwards."""
    fd = os.memfd_create("isthmus-pem", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
