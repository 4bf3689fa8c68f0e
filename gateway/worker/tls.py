"""TLS of a worker: orders of the supervisor become what the core shows in handshakes and verifies.

Contexts are made one in a turn and put to use together, so that no request waits for OpenSSL and none sees half of a change. What
is asked back once a handshake stands here too: whether an endpoint's certificate carries one of the wanted names.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol

from cryptography import x509
from OpenSSL import SSL

from gateway._core.tls import ClientTLS, ServerTLS
from gateway.supervisor.ipc import TLS, ClientSide, Pair, ServerSide
from gateway.worker.certificate_facts import forwarded_value
from gateway.worker.contexts import address_of, client_context, reason_of, server_contexts

PROTOCOLS = ("h2", "http/1.1")
"""What listeners speak, the first before the others."""


class Securable(Protocol):
    """The part of the engine that TLS needs."""

    def set_server_tls(self, listener: int, tls: ServerTLS | None) -> None: ...
    def set_client_tls(self, cluster: int, tls: ClientTLS | None) -> None: ...
    def set_certificate_reader(self, read: Callable[[bytes], bytes] | None) -> None: ...


class Desk:
    """What this worker's listeners and clusters have, and what is ready to replace it."""

    def __init__(self, engine: Securable) -> None:
        self._engine = engine
        self._servers: dict[int, ServerTLS] = {}
        self._clients: dict[int, ClientTLS] = {}
        self._in_use: tuple[set[int], set[int]] = (set(), set())
        # Clusters with the same authorities, lists and certificate share a context: those of a system are 150 certificates.
        self._contexts: weakref.WeakValueDictionary[tuple[str, Pair | None, bytes], SSL.Context] = weakref.WeakValueDictionary()
        engine.set_certificate_reader(forwarded_value)

    async def prepare(self, order: TLS) -> list[tuple[int, str]]:
        """Makes what the order says, for the next `apply`. Answers the ids of what OpenSSL did not take, and why."""
        refused = []
        for id_, server in order.listeners.items():
            try:
                self._servers[id_] = await self._server(server, order.bundles)
            except (SSL.Error, ValueError, KeyError, OSError) as error:
                refused.append((id_, _why(error)))
        for id_, client in order.clusters.items():
            try:
                self._clients[id_] = self._client(client, order.bundles)
            except (SSL.Error, ValueError, KeyError, OSError) as error:
                refused.append((id_, _why(error)))
            await asyncio.sleep(0)
        return refused

    def apply(self) -> None:
        """Puts to use what is ready; open connections go on with what they have."""
        listeners, clusters = self._in_use
        for id_, server in self._servers.items():
            self._engine.set_server_tls(id_, server)
            listeners.add(id_)
        for id_, client in self._clients.items():
            self._engine.set_client_tls(id_, client)
            clusters.add(id_)
        self._servers, self._clients = {}, {}

    def forget(self, secured: Iterable[int]) -> None:
        """Takes away what listeners and clusters other than these have."""
        kept = set(secured)
        listeners, clusters = self._in_use
        for id_ in listeners - kept:
            self._engine.set_server_tls(id_, None)
        for id_ in clusters - kept:
            self._engine.set_client_tls(id_, None)
        self._in_use = (listeners & kept, clusters & kept)

    async def _server(self, side: ServerSide, bundles: dict[str, bytes]) -> ServerTLS:
        contexts = []
        for make in server_contexts(side, bundles[side.ca] if side.ca else b""):
            names, context, ocsp = make()
            contexts.append(([name.encode() for name in names], address_of(context), context, ocsp))
            await asyncio.sleep(0)
        return ServerTLS(
            contexts, asks_client=bool(side.ca), lets_through=side.lets_through, alpn=wire_protocols(PROTOCOLS)
        )

    def _client(self, side: ClientSide, bundles: dict[str, bytes]) -> ClientTLS:
        key = (side.ca, side.pair, side.crl)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = client_context(bundles[side.ca], side.pair, side.crl, side.crl_for_all)
        return ClientTLS(
            address_of(context),
            context,
            identity=identity_of(side),
            server_name=side.server_name.encode(),
            ip=ipaddress.ip_address(side.address).packed if side.address else b"",
            names=NameCheck(side.names) if side.names else None,
            alpn=wire_protocols(side.alpn),
            carries=side.carries,
        )


class NameCheck:
    """Whether a certificate carries one of these hosts ("*.x": any below x), addresses or URIs."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._hosts: set[str] = set()
        self._parents: list[str] = []
        self._addresses: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
        self._uris: set[str] = set()
        for name in wanted:
            if "://" in name:
                self._uris.add(name)
            elif (address := _address(name)) is not None:
                self._addresses.add(address)
            elif name.startswith("*."):
                self._parents.append(name[1:].lower().removesuffix("."))
            else:
                self._hosts.add(name.lower().removesuffix("."))

    def __call__(self, der: bytes) -> bool:
        """Called by the core with the endpoint's certificate, whose chain has been verified."""
        try:
            names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return False
        return any(
            self._is_wanted(name.lower().removesuffix(".")) for name in names.get_values_for_type(x509.DNSName)
        ) or any(
            address in self._addresses for address in names.get_values_for_type(x509.IPAddress)
        ) or any(uri in self._uris for uri in names.get_values_for_type(x509.UniformResourceIdentifier))  # fmt: skip

    def _is_wanted(self, carried: str) -> bool:
        """For a host as a certificate carries it, where "*" is one label (RFC 6125 §6.4.3)."""
        if carried in self._hosts or any(carried.endswith(parent) and len(carried) > len(parent) for parent in self._parents):
            return True
        return carried.startswith("*.") and any(host.partition(".")[2] == carried[2:] for host in self._hosts)


def identity_of(side: ClientSide) -> bytes:
    """Digest of everything that makes connections unlike each other."""
    digest = hashlib.sha256()
    pair = (side.pair.chain, side.pair.key) if side.pair is not None else ()
    texts = (side.ca, side.server_name, side.address, *side.alpn, "carries" if side.carries else "", *side.names)
    # A list that changes makes another identity: who was let in by the old one, or resumes, is verified again.
    for part in (*(text.encode() for text in texts), side.crl, *pair):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()


def wire_protocols(protocols: Iterable[str]) -> bytes:
    """As ALPN writes them: each with its length before it."""
    return b"".join(bytes([len(name)]) + name.encode() for name in protocols)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _why(error: Exception) -> str:
    """In words that hold nothing of what was read."""
    if isinstance(error, SSL.Error):
        return reason_of(error)
    return f"authorities are missing ({error})" if isinstance(error, KeyError) else str(error)
