"""The contexts that workers use, in handshakes with Python's own TLS on the other side."""

import contextlib
import os
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL
from pki import Authority, chain_of, key_of, leaf_of
from pki import days as in_days

from gateway.sources.pem import read_bundle, read_chain
from gateway.supervisor.ipc import Pair, ServerSide
from gateway.worker.contexts import address_of, arrange, client_context, reason_of, server_contexts

AUTHORITY = Authority()
MIDDLE = Authority("Middle", is_intermediate_of=AUTHORITY)
OTHER = Authority("Other")


def pair_of(leaf: trustme.LeafCert, ocsp: bytes = b"") -> Pair:
    chain = read_chain(chain_of(leaf), key_of(leaf))
    return Pair(chain.names, chain.kind, chain.pem, key_of(leaf), ocsp)


ONE = pair_of(AUTHORITY.issue("one.test"))
RSA = pair_of(MIDDLE.issue("one.test", rsa=True))


def server_of(*pairs: Pair, authorities: bytes = b"", **side: Any) -> SSL.Context:
    """The default context of a listener."""
    ca = read_bundle("ca", authorities).digest if authorities else ""
    return next(server_contexts(ServerSide(pairs, ca=ca, **side), authorities))()[1]


def client(**how: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    for name, value in how.items():
        if isinstance(value, tuple):
            context.load_cert_chain(*value)
        elif name == "ciphers":
            context.set_ciphers(value)
        else:
            setattr(context, name, value)
    return context


class Hands:
    """Both ends of a handshake, in memory; whoever refuses raises."""

    def __init__(self, ours: SSL.Context, theirs: ssl.SSLContext, *, name: str = "one.test", session: Any = None) -> None:
        self.ours = SSL.Connection(ours)
        self.ours.set_accept_state()
        self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.theirs = theirs.wrap_bio(self.inward, self.outward, server_hostname=name, session=session)

    def shake(self) -> "Hands":
        done: set[str] = set()
        for _ in range(12):
            for end, step, wants in (
                ("theirs", self.theirs.do_handshake, ssl.SSLWantReadError),
                ("ours", self.ours.do_handshake, SSL.WantReadError),
            ):
                try:
                    step()
                    done.add(end)
                except wants:
                    pass
                finally:
                    self._carry()
            if len(done) == 2:
                # What follows a handshake of 1.3 (tickets, an alert about a client's certificate) comes with the first bytes.
                self.ours.send(b"x")
                self._carry()
                assert self.theirs.read(1) == b"x"
                return self
        raise AssertionError(f"only {done} came to an end")

    def _carry(self) -> None:
        if data := self.outward.read():
            self.ours.bio_write(data)
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self.inward.write(self.ours.bio_read(65536))


@pytest.fixture
def files(tmp_path: Any) -> Iterator[Any]:
    """Writes a leaf for Python's client, which reads files alone."""

    def write(leaf: trustme.LeafCert) -> tuple[str, str]:
        (tmp_path / "c.crt").write_bytes(chain_of(leaf))
        (tmp_path / "c.key").write_bytes(key_of(leaf))
        return str(tmp_path / "c.crt"), str(tmp_path / "c.key")

    yield write


def names_shown(*pairs: Pair) -> list[tuple[tuple[str, ...], list[int]]]:
    return [(names, [pairs.index(pair) for pair in together]) for names, together in arrange(pairs)]


def bare(names: str, kind: str = "EC", ocsp: bytes = b"") -> Pair:
    return Pair(tuple(names.split()), kind, f"{names} {kind}".encode(), b"", ocsp)


@pytest.mark.parametrize(
    ("pairs", "shown"),
    [
        ([bare("a")], [(("a",), [0])]),
        ([bare("a b"), bare("c")], [(("a", "b"), [0]), (("c",), [1])]),
        ([bare("a"), bare("a", "RSA")], [(("a",), [0, 1])]),
        ([bare("a b", "RSA"), bare("a")], [(("a",), [0, 1]), (("b",), [0])]),
        ([bare("a"), bare("a")], [(("a",), [0])]),
        ([bare("*.x y"), bare("a.x", "RSA")], [(("*.x", "y"), [0]), (("a.x",), [0, 1])]),
        ([bare("*.x"), bare("a.x")], [(("*.x",), [0]), (("a.x",), [1])]),
        ([bare(""), bare("a")], [((), [0]), (("a",), [1])]),
        ([bare("b", "RSA"), bare("a"), bare("b")], [(("b",), [0, 2]), (("a",), [1])]),
    ],
)
def test_pairs_of_two_kinds_are_shown_together_for_the_names_that_both_have(pairs: list[Pair], shown: Any) -> None:
    assert names_shown(*pairs) == shown


def test_a_certificate_of_each_kind_has_an_ocsp_response_of_its_own() -> None:
    """Told apart by the address that OpenSSL names in a handshake, so that the response follows the certificate that was chosen."""
    ec, rsa = (Pair(pair.names, pair.kind, pair.chain, pair.key, pair.kind.encode()) for pair in (ONE, RSA))
    for pairs, responses in (((ec, rsa), {"EC": b"EC", "RSA": b"RSA"}), ((ONE, rsa), {"RSA": b"RSA"}), ((ec, RSA), {"EC": b"EC"})):
        _, context, staples = next(server_contexts(ServerSide(pairs), b""))()
        for kind, cipher in (("EC", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("RSA", "ECDHE-RSA-AES128-GCM-SHA256")):
            hands = Hands(context, client(maximum_version=ssl.TLSVersion.TLSv1_2, ciphers=cipher)).shake()
            shown = int(_openssl.ffi.cast("uintptr_t", _openssl.lib.SSL_get_certificate(hands.ours._ssl)))
            assert dict(staples).get(shown) == responses.get(kind)
        assert len(staples) == len(responses)


def test_one_name_has_an_ecdsa_and_an_rsa_certificate_each_with_its_own_chain() -> None:
    context = server_of(ONE, RSA)
    modern = Hands(context, client()).shake()
    assert modern.ours.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    old = client(maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    assert shown_by(Hands(context, old).shake()) == leaf_pem(RSA)
    newer = client(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert shown_by(Hands(context, newer).shake()) == leaf_pem(ONE)


def shown_by(hands: Hands) -> bytes:
    der = hands.theirs.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der).encode()


def leaf_pem(pair: Pair) -> bytes:
    return pair.chain[: pair.chain.index(b"-----END CERTIFICATE-----") + len(b"-----END CERTIFICATE-----\n")]


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256"])
def test_what_is_weak_is_not_spoken(ciphers: str) -> None:
    old = client(maximum_version=ssl.TLSVersion.TLSv1_2, ciphers=f"{ciphers}:@SECLEVEL=0")
    with pytest.raises(SSL.Error, match="no shared cipher"):
        Hands(server_of(ONE, RSA), old).shake()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_are_refused() -> None:
    def at_most(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = client(ciphers="ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
        return context

    with pytest.raises(SSL.Error, match="unsupported protocol"):
        Hands(server_of(ONE), at_most(ssl.TLSVersion.TLSv1_1)).shake()
    Hands(server_of(ONE), at_most(ssl.TLSVersion.TLSv1_2)).shake()
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        Hands(server_of(ONE, min_version="1.3"), at_most(ssl.TLSVersion.TLSv1_2)).shake()
    Hands(server_of(ONE, min_version="1.3"), at_most(ssl.TLSVersion.TLSv1_3)).shake()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("tickets", [True, False])
def test_sessions_are_resumed_by_tickets_alone(version: str, tickets: bool) -> None:
    context = server_of(ONE, tickets=tickets)
    theirs = client(maximum_version=ssl.TLSVersion[version])
    first = Hands(context, theirs).shake()
    again = Hands(context, theirs, session=first.theirs.session).shake()
    assert again.theirs.session_reused is tickets
    # Other contexts have other keys: a swap of certificates costs a full handshake, never a failed one.
    assert Hands(server_of(ONE), theirs, session=first.theirs.session).shake().theirs.session_reused is False


def test_a_client_s_certificate_is_asked_for_and_verified(files: Any) -> None:
    def shaken(leaf: trustme.LeafCert | None, **side: Any) -> SSL.Connection:
        theirs = client(own=files(leaf)) if leaf is not None else client()
        return Hands(server_of(ONE, **side), theirs).shake().ours

    needs = {"authorities": AUTHORITY.pem, "requires": True}
    good = AUTHORITY.issue("me.test")
    assert shaken(good, **needs).get_peer_certificate() is not None
    assert shaken(None, authorities=AUTHORITY.pem).get_peer_certificate() is None
    with pytest.raises(SSL.Error, match="peer did not return a certificate"):
        shaken(None, **needs)
    for asks in (needs, {"authorities": AUTHORITY.pem}):
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            shaken(OTHER.issue("me.test"), **asks)
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        shaken(AUTHORITY.issue("me.test", not_before=in_days(-9), not_after=in_days(-1)), **needs)
    # Not asked for, it is not looked at.
    assert shaken(OTHER.issue("me.test")).get_peer_certificate() is None


def test_the_chain_of_a_client_may_be_so_long_and_no_longer(files: Any) -> None:
    leaf = MIDDLE.issue("me.test")
    for depth, authorities, is_good in ((1, AUTHORITY.pem, True), (0, AUTHORITY.pem, False), (0, MIDDLE.pem, True)):
        hands = Hands(server_of(ONE, authorities=authorities, requires=True, depth=depth), client(own=files(leaf)))
        if is_good:
            hands.shake()
        else:
            with pytest.raises(SSL.Error, match="certificate verify failed"):
                hands.shake()


def test_a_revoked_certificate_is_refused(files: Any) -> None:
    revoked, good = AUTHORITY.issue("bad.test"), AUTHORITY.issue("good.test")
    below = MIDDLE.issue("below.test")
    ours = AUTHORITY.revoke(revoked)
    cases = [
        (good, ours, True, True),
        (revoked, ours, True, False),
        (revoked, ours, False, False),
        (below, ours, False, False),                      # nobody says whether it is revoked
        (below, ours + MIDDLE.revoke(), False, True),
        (below, ours + MIDDLE.revoke(), True, True),
        (good, AUTHORITY.revoke(next_update=in_days(-1)), True, False),
    ]  # fmt: skip
    for leaf, crl, for_all, is_good in cases:
        side: dict[str, Any] = {"authorities": AUTHORITY.pem, "requires": True, "crl": crl, "crl_for_all": for_all}
        hands = Hands(server_of(ONE, **side), client(own=files(leaf)))
        if is_good:
            hands.shake()
        else:
            with pytest.raises(SSL.Error, match="certificate verify failed"):
                hands.shake()


@pytest.fixture
def reached(files: Any) -> Callable[[SSL.Context, trustme.LeafCert], dict[str, Any] | None]:
    """Makes a handshake of ours as a client with an endpoint that shows a leaf; what we showed it."""

    def shake(context: SSL.Context, leaf: trustme.LeafCert) -> dict[str, Any] | None:
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(*files(leaf))
        theirs.verify_mode = ssl.CERT_OPTIONAL
        theirs.load_verify_locations(cadata=AUTHORITY.pem.decode())
        inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        end = theirs.wrap_bio(inward, outward, server_side=True)
        ours = SSL.Connection(context)
        ours.set_connect_state()
        for _ in range(6):
            for step in (ours.do_handshake, end.do_handshake):
                with contextlib.suppress(SSL.WantReadError, ssl.SSLWantReadError):
                    step()
                with contextlib.suppress(SSL.WantReadError):
                    while True:
                        inward.write(ours.bio_read(65536))
                if data := outward.read():
                    ours.bio_write(data)
        return end.getpeercert()

    return shake


def test_our_side_as_a_client_verifies_and_shows_its_own_certificate(reached: Any) -> None:
    mine = pair_of(AUTHORITY.issue("me.test"))
    shown = reached(client_context(AUTHORITY.pem, mine), AUTHORITY.issue("one.test"))
    assert shown is not None and shown["subjectAltName"] == (("DNS", "me.test"),)
    assert not reached(client_context(AUTHORITY.pem + OTHER.pem, None), OTHER.issue("one.test"))
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        reached(client_context(AUTHORITY.pem, None), OTHER.issue("one.test"))
    # Whoever stands in the bundle is trusted, although it is no root.
    reached(client_context(MIDDLE.pem, None), MIDDLE.issue("one.test"))


def test_our_side_as_a_client_refuses_who_is_revoked_or_of_whom_nobody_says(reached: Any) -> None:
    revoked, good, below = AUTHORITY.issue("one.test"), AUTHORITY.issue("one.test"), MIDDLE.issue("one.test")
    ours = AUTHORITY.revoke(revoked)
    for leaf, crl, for_all, is_good in (
        (good, ours, True, True),
        (revoked, ours, True, False),
        (revoked, ours, False, False),
        (revoked, b"", False, True),
        (below, ours, False, False),
        (below, ours + MIDDLE.revoke(), True, True),
    ):
        context = client_context(AUTHORITY.pem, None, crl, for_all)
        if is_good:
            reached(context, leaf)
        else:
            with pytest.raises(SSL.Error, match="certificate verify failed"):
                reached(context, leaf)


# Numbers of RFC 8446 §4.2.7 and draft-ietf-tls-ecdhe-mlkem: P-256, P-384, X25519, X25519MLKEM768.
P256, P384, X25519, HYBRID = 0x17, 0x18, 0x1D, 0x11EC


def extensions(hello: bytes) -> dict[int, bytes]:
    """Of a ClientHello in one record (RFC 8446 §4.1.2)."""
    assert hello[0] == 22 and hello[5] == 1
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    found = {}
    while at < end:
        kind, size = struct.unpack_from("!HH", hello, at)
        found[kind] = hello[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def test_a_hello_of_ours_names_four_groups_and_brings_two_key_shares() -> None:
    """Two, so that an endpoint without ML-KEM need not ask for a second hello."""
    ours = SSL.Connection(client_context(AUTHORITY.pem, None))
    ours.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        ours.do_handshake()
    found = extensions(ours.bio_read(65536))
    groups = found[10]
    assert [*struct.unpack(f"!{len(groups) // 2 - 1}H", groups[2:])] == [HYBRID, X25519, P256, P384]
    shares, at = [], 2
    while at < len(found[51]):
        group, size = struct.unpack_from("!HH", found[51], at)
        shares.append((group, size))
        at += 4 + size
    assert shares == [(HYBRID, 1184 + 32), (X25519, 32)]


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (b"X25519MLKEM768", "X25519MLKEM768"),
        (b"X25519", "x25519"),
        (b"P-256", "secp256r1"),
        (b"P-384", "secp384r1"),
        (b"P-521", None),
        (b"X448", None),
        (b"ffdhe2048", None),
        # The one whose share came along: no second hello for a group that costs less.
        (b"P-384:P-256:X25519", "secp384r1"),
        (b"P-256:X25519MLKEM768", "secp256r1"),
        # Of several whose shares came along the first of ours.
        (b"*P-384:*X25519:*X25519MLKEM768", "X25519MLKEM768"),
        (b"*P-384:*P-256:*X25519", "x25519"),
    ],
)
def test_a_listener_agrees_on_four_groups_and_no_other(offered: bytes, agreed: str | None) -> None:
    ours, theirs = SSL.Connection(server_of(ONE)), SSL.Connection(offering(offered))
    ours.set_accept_state()
    theirs.set_connect_state()
    try:
        for _ in range(6):
            for end, other in ((theirs, ours), (ours, theirs)):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(65536))
    except SSL.Error as error:
        assert agreed is None and "no suitable key share" in reason_of(error)
    else:
        name = _openssl.lib.SSL_get0_group_name(ours._ssl)
        assert _openssl.ffi.string(name).decode() == agreed


def offering(groups: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert _openssl.lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    return context


def test_what_openssl_does_not_take_is_told_in_its_words_and_without_the_key() -> None:
    other = pair_of(AUTHORITY.issue("one.test"))
    with pytest.raises(SSL.Error) as refusal:
        server_of(Pair(ONE.names, ONE.kind, ONE.chain, other.key))
    assert "mismatch" in reason_of(refusal.value)
    assert key_text(other) not in repr(refusal.value)
    with pytest.raises(SSL.Error):
        client_context(b"nothing", None)
    assert reason_of(SSL.Error()) == "OpenSSL does not say why"


def key_text(pair: Pair) -> str:
    return pair.key.decode().splitlines()[1]


def test_each_context_is_somewhere_else_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    contexts = [server_of(ONE), server_of(ONE), client_context(AUTHORITY.pem, None)]
    assert len({address_of(context) for context in contexts}) == 3 and all(map(address_of, contexts))
    assert len(os.listdir("/proc/self/fd")) == before
    assert leaf_of(MIDDLE.issue("x.test")).issuer == MIDDLE.certificate.subject
