"""Orders about TLS become what the core gets; the engine is a double, what it gets is the core's own."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from pki import Authority, chain_of, key_of, leaf_of

from gateway._core.tls import ClientTLS, ServerTLS
from gateway.sources.pem import read_bundle, read_chain
from gateway.supervisor.ipc import TLS, ClientSide, Pair, ServerSide
from gateway.worker.tls import Desk, NameCheck, identity_of, wire_protocols

AUTHORITY = Authority()
BUNDLE = read_bundle("ca", AUTHORITY.pem)
LEAF = AUTHORITY.issue("one.test")
CHAIN = read_chain(chain_of(LEAF), key_of(LEAF))
PAIR = Pair(CHAIN.names, CHAIN.kind, CHAIN.pem, key_of(LEAF))
SERVER = ServerSide((PAIR,))
CLIENT = ClientSide(BUNDLE.digest, "one.test", alpn=("http/1.1",))


class Engine:
    """Remembers who has what."""

    def __init__(self) -> None:
        self.servers: dict[int, ServerTLS | None] = {}
        self.clients: dict[int, ClientTLS | None] = {}
        self.reader: Callable[[bytes], bytes] | None = None

    def set_server_tls(self, listener: int, tls: ServerTLS | None) -> None:
        self.servers[listener] = tls

    def set_client_tls(self, cluster: int, tls: ClientTLS | None) -> None:
        self.clients[cluster] = tls

    def set_certificate_reader(self, read: Callable[[bytes], bytes] | None) -> None:
        self.reader = read


def order(listeners: dict[int, ServerSide], clusters: dict[int, ClientSide], revision: int = 1) -> TLS:
    return TLS(revision, {BUNDLE.digest: BUNDLE.pem}, listeners, clusters)


def prepare(desk: Desk, told: TLS) -> list[tuple[int, str]]:
    return asyncio.run(desk.prepare(told))


def test_nothing_is_in_use_before_it_is_applied_and_what_is_gone_is_forgotten() -> None:
    engine = Engine()
    desk = Desk(engine)
    assert engine.reader is not None and engine.reader(b"x").startswith(b"Hash=")
    assert prepare(desk, order({1: SERVER, 2: SERVER}, {3: CLIENT})) == []
    assert engine.servers == {} and engine.clients == {}
    desk.apply()
    first = engine.servers[1]
    assert isinstance(first, ServerTLS) and isinstance(engine.clients[3], ClientTLS) and first is not engine.servers[2]
    prepare(desk, order({1: SERVER}, {}))
    desk.apply()
    assert engine.servers[1] not in (None, first) and engine.servers[2] is not None
    desk.forget([1])
    assert engine.servers[2] is None and engine.clients[3] is None and engine.servers[1] is not None
    desk.forget([])
    assert engine.servers[1] is None


def test_what_openssl_refuses_leaves_what_was_there_and_the_others_go_on() -> None:
    engine = Engine()
    desk = Desk(engine)
    prepare(desk, order({1: SERVER}, {}))
    desk.apply()
    good = engine.servers[1]
    other = AUTHORITY.issue("one.test")
    mixed = ServerSide((Pair(PAIR.names, PAIR.kind, PAIR.chain, key_of(other)),))
    lost = ClientSide("no such digest", "one.test")
    refused = dict(prepare(desk, order({1: mixed, 2: SERVER}, {3: lost})))
    desk.apply()
    assert set(refused) == {1, 3} and "mismatch" in refused[1] and "authorities are missing" in refused[3]
    assert engine.servers[1] is good and isinstance(engine.servers[2], ServerTLS) and 3 not in engine.clients
    assert key_of(other).decode().splitlines()[1] not in str(refused)


def test_clusters_with_the_same_authorities_share_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.worker import tls as module

    made: list[Any] = []
    real = module.client_context
    monkeypatch.setattr(module, "client_context", lambda *args: made.append(args) or real(*args))
    engine = Engine()
    desk = Desk(engine)
    mine = ClientSide(BUNDLE.digest, "one.test", pair=PAIR)
    prepare(desk, order({}, {1: CLIENT, 2: ClientSide(BUNDLE.digest, "two.test"), 3: mine}))
    assert len(made) == 2
    prepare(desk, order({}, {4: ClientSide(BUNDLE.digest, "one.test", crl=AUTHORITY.revoke()), 5: CLIENT}))
    assert len(made) == 3, "who is asked about revocation is verified by another one"
    desk.apply()
    desk.forget([])
    engine.clients.clear()
    assert not list(desk._contexts), "a context lives as long as somebody uses it"


def test_whatever_makes_connections_unlike_makes_their_identity_unlike() -> None:
    sides = [
        CLIENT,
        ClientSide("other", "one.test", alpn=("http/1.1",)),
        ClientSide(BUNDLE.digest, "two.test", alpn=("http/1.1",)),
        ClientSide(BUNDLE.digest, "", "10.0.0.1", alpn=("http/1.1",)),
        ClientSide(BUNDLE.digest, "one.test", names=("http/1.1",)),
        ClientSide(BUNDLE.digest, "one.test"),
        ClientSide(BUNDLE.digest, "one.test", pair=PAIR, alpn=("http/1.1",)),
        ClientSide(BUNDLE.digest, "one.test", alpn=("http/1.1",), crl=b"lists"),
        ClientSide(BUNDLE.digest, "one.test", alpn=("http/1.1",), carries=True),
    ]
    assert len({identity_of(side) for side in sides}) == len(sides)
    assert identity_of(CLIENT) == identity_of(ClientSide(BUNDLE.digest, "one.test", alpn=("http/1.1",)))
    assert identity_of(CLIENT) not in (PAIR.key, b"")


def test_an_address_is_verified_as_one() -> None:
    engine = Engine()
    desk = Desk(engine)
    sides = {
        1: ClientSide(BUNDLE.digest, address="10.0.0.1"),
        2: ClientSide(BUNDLE.digest, address="::1"),
        3: ClientSide(BUNDLE.digest, names=("a",)),
    }
    assert prepare(desk, order({}, sides)) == []
    assert [id_ for id_, _ in prepare(desk, order({}, {4: ClientSide(BUNDLE.digest)}))] == [4], "nothing to verify is no TLS"


@pytest.mark.parametrize(
    ("wanted", "carried", "is_one"),
    [
        ("a.test", "a.test", True),
        ("A.Test.", "a.test", True),
        ("a.test", "*.test", True),
        ("a.b.test", "*.test", False),
        ("test", "*.test", False),
        ("a.test", "b.test", False),
        ("*.test", "a.test", True),
        ("*.test", "a.b.test", True),
        ("*.test", "*.b.test", True),
        ("*.test", "test", False),
        ("*.test", "atest", False),
        ("spiffe://x/a", "spiffe://x/a", True),
        ("spiffe://x/a", "spiffe://x/A", False),
        ("spiffe://x/a", "spiffe.test", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "*.0.0.1", False),
    ],
)
def test_a_certificate_carries_one_of_the_wanted_names_or_it_does_not(wanted: str, carried: str, is_one: bool) -> None:
    from cryptography import x509
    from test_certificate_facts import der_of, named

    name: x509.GeneralName
    if "://" in carried:
        name = x509.UniformResourceIdentifier(carried)
    else:
        try:
            name = x509.IPAddress(ipaddress.ip_address(carried))
        except ValueError:
            name = x509.DNSName(carried)
    check = NameCheck(["never.other", wanted])
    assert check(der_of(named(), x509.DNSName("other.example"), name)) is is_one


def test_a_certificate_without_names_carries_none() -> None:
    from test_certificate_facts import der_of, named

    check = NameCheck(["a.test"])
    assert not check(der_of(named())) and not check(b"nonsense")
    assert check(leaf_of(AUTHORITY.issue("a.test")).public_bytes(Encoding.DER))


def test_protocols_are_written_with_their_length() -> None:
    assert wire_protocols(("h2", "http/1.1")) == b"\x02h2\x08http/1.1" and wire_protocols(()) == b""
