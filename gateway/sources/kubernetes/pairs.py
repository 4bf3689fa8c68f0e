"""Certificates, keys and authorities out of Secrets and ConfigMaps: whether they may be used, are there, and are good."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from OpenSSL import SSL

from gateway.sources.kubernetes.gateway import ObjectRef
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, Ref
from gateway.sources.kubernetes.view import View
from gateway.sources.pem import Refusal, read_bundle, read_chain
from gateway.supervisor.ipc import Pair, ServerSide
from gateway.worker.contexts import client_context, reason_of, server_contexts

_MOST_KNOWN = 10_000
_known: dict[bytes, str] = {}


@dataclass(frozen=True, slots=True)
class Refused:
    """A reference that comes to nothing."""

    reason: str
    message: str


class KeyFiles(NamedTuple):
    """Names under which View.pems has a pair."""

    cert: str
    key: str


def find_pair(view: View, source: Ref, ref: ObjectRef, reason: str, group: str = GATEWAY_GROUP) -> KeyFiles | Refused:
    """The pair of a kubernetes.io/tls Secret. reason: of a refusal that is not about permission."""
    if ref.group or ref.kind != "Secret":
        return Refused(reason, f"{ref.group + '/' if ref.group else ''}{ref.kind} '{ref.name}' is not a Secret")
    target = Ref("Secret", ref.namespace or source.namespace, ref.name)
    if not view.is_granted(source, group, target):
        return Refused("RefNotPermitted", f"no ReferenceGrant in '{target.namespace}' lets {source.kind} refer to {target.text()}")
    secret = view.secret(target.namespace, target.name)
    if secret is None:
        return Refused(reason, f"there is no {target.text()}")
    cert, key = secret.content("tls.crt"), secret.content("tls.key")
    if not cert or not key:
        return Refused(reason, f"{target.text()} has no '{'tls.key' if cert else 'tls.crt'}'")
    if flaw := pair_flaw(cert, key):
        return Refused(reason, f"{target.text()}: {flaw}")
    return KeyFiles(view.keep(f"{target.path()}/tls.crt", cert), view.keep(f"{target.path()}/tls.key", key))


def find_authorities(view: View, source: Ref, refs: tuple[ObjectRef, ...], group: str = GATEWAY_GROUP) -> tuple[str, list[Refused]]:
    """Name of a file with the authorities of all good references ("" when none is good), and what is wrong with the others.

    A ConfigMap with the key ca.crt is Core; a Secret with it is taken as well.
    """
    bundles: list[bytes] = []
    names: list[str] = []
    refused: list[Refused] = []
    for ref in refs:
        found = _find_bundle(view, source, ref, group)
        if isinstance(found, Refused):
            refused.append(found)
        else:
            names.append(found[0])
            bundles.append(found[1].rstrip(b"\n") + b"\n")
    if not bundles:
        return "", refused
    return view.keep("+".join(names), b"".join(bundles)), refused


def _find_bundle(view: View, source: Ref, ref: ObjectRef, group: str) -> tuple[str, bytes] | Refused:
    if ref.group or ref.kind not in ("ConfigMap", "Secret"):
        return Refused("InvalidKind", f"{ref.group + '/' if ref.group else ''}{ref.kind} '{ref.name}' is not a ConfigMap")
    target = Ref(ref.kind, ref.namespace or source.namespace, ref.name)
    if not view.is_granted(source, group, target):
        return Refused("RefNotPermitted", f"no ReferenceGrant in '{target.namespace}' lets {source.kind} refer to {target.text()}")
    holder = (view.config_map if ref.kind == "ConfigMap" else view.secret)(target.namespace, target.name)
    if holder is None:
        return Refused("InvalidCACertificateRef", f"there is no {target.text()}")
    content = holder.content("ca.crt")
    if not content:
        return Refused("InvalidCACertificateRef", f"{target.text()} has no 'ca.crt'")
    if flaw := bundle_flaw(content):
        return Refused("InvalidCACertificateRef", f"{target.text()}: {flaw}")
    return f"{target.path()}/ca.crt", content


def pair_flaw(cert: bytes, key: bytes) -> str:
    """What is wrong with a pair in PEM; "" when nothing is."""
    return _remember(b"pair" + hashlib.sha256(cert).digest() + hashlib.sha256(key).digest(), lambda: _pair_flaw(cert, key))


def bundle_flaw(content: bytes) -> str:
    """What is wrong with authorities in PEM; "" when nothing is."""
    return _remember(b"bundle" + hashlib.sha256(content).digest(), lambda: _bundle_flaw(content))


def _remember(mark: bytes, find: Callable[[], str]) -> str:
    if mark not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[mark] = find()
    return _known[mark]


def _pair_flaw(cert: bytes, key: bytes) -> str:
    try:
        chain = read_chain(cert, key)
        for make in server_contexts(ServerSide((Pair(chain.names, chain.kind, chain.pem, key),)), b""):
            make()
    except Refusal as refusal:
        return f"'tls.{'crt' if refusal.key == 'cert' else 'key'}' {refusal}"
    except SSL.Error as error:
        return f"OpenSSL does not take 'tls.crt': {reason_of(error)}"
    return ""


def _bundle_flaw(content: bytes) -> str:
    try:
        client_context(read_bundle("ca", content).pem, None)
    except Refusal as refusal:
        return f"'ca.crt' {refusal}"
    except SSL.Error as error:
        return f"OpenSSL does not take 'ca.crt': {reason_of(error)}"
    return ""
