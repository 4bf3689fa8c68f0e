"""TLS for the wire tests: an authority, the contexts that a worker would build, and ends that encrypt what they say."""

import hashlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import trustme
from cryptography.hazmat.bindings._rust import _openssl
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import SSL, crypto
from wirebench import PATIENCE, Client, Gateway

from gateway._core.engine import Engine
from gateway._core.tls import ClientTLS, ServerTLS
from gateway.control.compile import name_id

HTTP1 = b"\x08http/1.1"
AUTHORITY = trustme.CA()


def address(context: SSL.Context) -> int:
    """Where the SSL_CTX lies."""
    return int(_openssl.ffi.cast("uintptr_t", context._context))


def server_context(*names: str, clients: trustme.CA | None = None, **how: Any) -> SSL.Context:
    """A context with a certificate for the names; with `clients`, it demands one that this authority signed."""
    leaf = AUTHORITY.issue_cert(*names, **how)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))
    context.use_privatekey(load_pem_private_key(leaf.private_key_pem.bytes(), None))  # type: ignore[arg-type]
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_session_id(b"isthmus")
    if clients is not None:
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, clients.cert_pem.bytes()))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    return context


def server_tls(
    *contexts: tuple[tuple[str, ...], SSL.Context], asks_client: bool = False, ocsp: bytes = b"", alpn: bytes = HTTP1
) -> ServerTLS:
    """ocsp: stapled to the last certificate of each context."""
    rows = []
    for names, context in contexts:
        shown = _openssl.lib.SSL_get_certificate(SSL.Connection(context)._ssl)
        staples = [(int(_openssl.ffi.cast("uintptr_t", shown)), ocsp)] if ocsp else []
        rows.append(([name.encode() for name in names], address(context), context, staples))
    return ServerTLS(rows, asks_client=asks_client, alpn=alpn)


def client_tls(
    server_name: str = "", *, ip: bytes = b"", names: Callable[[bytes], bool] | None = None, authority: trustme.CA = AUTHORITY
) -> ClientTLS:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, authority.cert_pem.bytes()))
    identity = hashlib.sha256(server_name.encode() + b"|" + ip + b"|" + authority.cert_pem.bytes()).digest()
    return ClientTLS(
        address(context), context, identity=identity, server_name=server_name.encode(), ip=ip, names=names, alpn=HTTP1
    )


def show(gateway: Gateway, listener: str, tls: ServerTLS | None) -> None:
    def give(engine: Engine) -> None:
        engine.set_server_tls(name_id("listener", listener), tls)

    gateway.call(give)


def reach(gateway: Gateway, cluster: str, tls: ClientTLS | None) -> None:
    def give(engine: Engine) -> None:
        engine.set_client_tls(name_id("cluster", cluster), tls)

    gateway.call(give)


def trusting(*, version: str = "", alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
    """A client's context that trusts AUTHORITY."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def encrypted(client: Client, name: str | None, context: ssl.SSLContext | None = None, session: Any = None) -> ssl.SSLSocket:
    """Makes the handshake on a client's connection, whose scripts are encrypted from then on."""
    context = context or trusting()
    if name is None:
        context.check_hostname = False
    plain = client.socket
    client.socket = context.wrap_socket(plain, server_hostname=name, session=session)
    client.socket.settimeout(PATIENCE)
    return client.socket


def served(end: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The origin's side of the handshake, on a connection that it accepted."""
    return context.wrap_socket(end, server_side=True)
