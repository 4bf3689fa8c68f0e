"""The files that a configuration names for TLS, read and checked; what is bad leaves the last good content in use.

`secure` looks at every listener and cluster with TLS. A pair, bundle or list that cannot be read, is not what it should be, or that
OpenSSL does not take, is a Finding; the content that its path had before goes on being used, and without any the object is left
out. The answer also says which files were looked at and in what state, so that a watch sees when one of them changes, and when the
next look is due because a certificate comes nearer to its end.
"""

import os
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from OpenSSL import SSL

from gateway.model.cluster import Cluster, verified_name
from gateway.model.config import Config
from gateway.model.listener import Listener
from gateway.model.names import intersect_hostnames, normal_hostname
from gateway.model.problem import Finding, warning
from gateway.model.problem import Path as KeyPath
from gateway.model.tls import Certificate, ClientCertificate, KeyPair
from gateway.sources.pem import (
    Bundle,
    Chain,
    Lists,
    Refusal,
    Staple,
    day,
    read_bundle,
    read_chain,
    read_lists,
    read_staple,
    system_authorities,
)
from gateway.supervisor.ipc import ClientSide, Pair, ServerSide
from gateway.worker.contexts import client_context, reason_of, server_contexts

MAX_FILE_BYTES = 4 << 20
"""Largest file that is read; the bundle of a system has a quarter of a MiB."""
WARNING_DAYS = (30, 7, 1)
"""So many days before a certificate ends somebody is told, again at each."""
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",                # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",                            # SUSE
    "/etc/ssl/cert.pem",
)  # fmt: skip

Mark = tuple[str, ...]
T = TypeVar("T")

OFFERED = {"HTTP1": ("http/1.1",), "HTTP2": ("h2",), "auto": ("h2", "http/1.1")}
"""What endpoints are offered by ALPN (RFC 7301), by the protocol of their cluster."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate in use, for people and metrics."""

    owner: str
    """listener or cluster"""
    name: str
    """Of the owner."""
    file: str
    names: tuple[str, ...]
    key: str
    subject: str
    issuer: str
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Secured:
    """What the listeners and clusters of a configuration need for TLS, by name."""

    listeners: dict[str, ServerSide] = field(default_factory=dict)
    clusters: dict[str, ClientSide] = field(default_factory=dict)
    bundles: dict[str, bytes] = field(default_factory=dict)
    """Authorities by the digest that the sides name."""
    facts: tuple[CertificateFacts, ...] = ()


@dataclass(slots=True)
class Files:
    """What was read, for the next load: contents are parsed again only when they differ."""

    marks: dict[Path, Mark] = field(default_factory=dict)
    """State of each file when it was looked at."""
    good: dict[tuple[str, ...], tuple[tuple[bytes, ...], Any]] = field(default_factory=dict, repr=False)
    """(what, paths) -> (contents, what they came to), of the last contents that were good."""


@dataclass(slots=True)
class Look:
    """What one look came to."""

    secured: Secured
    files: Files
    findings: list[Finding] = field(default_factory=list)
    left_out: set[tuple[str, str]] = field(default_factory=set)
    """(listeners or clusters, name)"""
    due: datetime | None = None
    """When the same files will mean something else."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object stands: its number among its kind, and the directory that its relative paths count from."""

    number: int
    directory: Path


def secure(
    config: Config,
    places: Mapping[tuple[str, str], Place],
    known: Files,
    *,
    now: datetime | None = None,
    given: Mapping[Path, bytes] | None = None,
) -> Look:
    """Looks at all files. places: by (listeners or clusters, name). given: contents of files that are none, such as Secrets."""
    look = _Looking(known, now or datetime.now(UTC), given or {})
    for listener in config.listeners:
        if listener.tls is not None:
            look.listener(listener, places["listeners", listener.name])
    for cluster in config.clusters:
        if cluster.tls is not None:
            look.cluster(cluster, places["clusters", cluster.name])
    secured = Secured(look.listeners, look.clusters, look.bundles, tuple(look.facts))
    return Look(secured, look.files, look.findings, look.left_out, look.due)


def file_mark(path: Path, real: Path | None = None) -> Mark:
    """What identifies the present state of a file, without reading it. Never raises."""
    try:
        target = os.path.realpath(real or path)
        status = os.stat(target)
    except (OSError, ValueError) as error:
        return (str(path), type(error).__name__)
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (str(path), target, *map(str, numbers))


def system_bundle() -> Path | None:
    """The file with the authorities that this machine trusts."""
    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or ""
    return next((Path(name) for name in (named, *SYSTEM_BUNDLES) if name and os.path.isfile(name)), None)


class _Left(Exception):
    """This object cannot be secured; why has been said."""


class _Looking:
    """One run of secure."""

    def __init__(self, known: Files, now: datetime, given: Mapping[Path, bytes]) -> None:
        self.known = known
        self.given = given
        self.now = now
        self.files = Files()
        self.findings: list[Finding] = []
        self.left_out: set[tuple[str, str]] = set()
        self.listeners: dict[str, ServerSide] = {}
        self.clusters: dict[str, ClientSide] = {}
        self.bundles: dict[str, bytes] = {}
        self.facts: list[CertificateFacts] = []
        self.due: datetime | None = None
        self._swapped: dict[Path, Path | None] = {}
        self._told: set[tuple[KeyPath, str]] = set()

    # ---- objects ----

    def listener(self, listener: Listener, place: Place) -> None:
        tls = listener.tls
        assert tls is not None
        path: KeyPath = ("listeners", place.number, "tls")
        try:
            client = tls.client_certificate
            trust = (
                self._clients(client, (*path, "clientCertificate"), place.directory) if client and client.mode != "off" else {}
            )
            pairs = list(self._pairs(tls.certificates, (*path, "certificates"), listener, place.directory))
            if not pairs:
                raise _Left
        except _Left:
            self._leave_out("listeners", listener.name)
            return
        side = ServerSide(tuple(pairs), min_version=tls.min_version, tickets=tls.session_tickets, **trust)
        self.listeners[listener.name] = side
        self._check_names(listener, side, (*path, "certificates"))

    def cluster(self, cluster: Cluster, place: Place) -> None:
        tls = cluster.tls
        assert tls is not None
        path: KeyPath = ("clusters", place.number, "tls")
        try:
            if tls.ca == "system":
                system = system_bundle()
                if system is None:
                    self._say((*path, "ca"), "this machine has no bundle of authorities; name a file")
                    raise _Left
                bundle = self._bundle((*path, "ca"), system, read=system_authorities)
            else:
                bundle = self._bundle((*path, "ca"), place.directory / tls.ca)
            lists = self._lists(tls.crl, path, place.directory, bundle, "endpoint")
            pair = None
            if tls.client_certificate is not None:
                chain, pair = self._pair(tls.client_certificate, (*path, "clientCertificate"), place.directory)
                self._note_facts("cluster", cluster.name, tls.client_certificate.cert, chain, (*path, "clientCertificate"))
        except _Left:
            self._leave_out("clusters", cluster.name)
            return
        name, address = verified_name(cluster)
        self.clusters[cluster.name] = ClientSide(
            ca=bundle.digest,
            server_name=name,
            address=address,
            names=tls.subject_alt_names,
            pair=pair,
            alpn=OFFERED[cluster.protocol],
            **lists,
        )

    def _leave_out(self, key: str, name: str) -> None:
        self.left_out.add((key, name))
        self._add_words(f"the {key[:-1]} is left out")

    def _add_words(self, consequence: str) -> None:
        """To what was said last, which was the reason."""
        last = self.findings[-1]
        self.findings[-1] = last._replace(message=f"{last.message.removesuffix('; this pair is left out')}; {consequence}")

    # ---- pairs ----

    def _pairs(self, certificates: tuple[Certificate, ...], path: KeyPath, listener: Listener, base: Path) -> Iterator[Pair]:
        seen: dict[tuple[tuple[str, ...], str], int] = {}
        for number, entry in enumerate(certificates):
            at: KeyPath = (*path, number)
            try:
                chain, pair = self._pair(entry, at, base)
            except _Left:
                self._add_words("this pair is left out")
                continue
            first = seen.setdefault((chain.names, chain.kind), number)
            if first != number:
                message = f"never shown: certificates[{first}] has the same names and the same kind of key"
                self.findings.append(warning((*at, "cert"), message))
            elif not chain.names and number:
                self.findings.append(warning((*at, "cert"), "never shown: it carries no host name, and it is not the first"))
            self._note_facts("listener", listener.name, entry.cert, chain, at)
            yield pair

    def _pair(self, entry: Certificate | KeyPair, path: KeyPath, base: Path) -> tuple[Chain, Pair]:
        files = {"cert": base / entry.cert, "key": base / entry.key}

        def read(cert: bytes, key: bytes) -> tuple[Chain, Pair]:
            chain = read_chain(cert, key)
            pair = Pair(chain.names, chain.kind, chain.pem, key)
            try:
                for make in server_contexts(ServerSide((pair,)), b""):
                    make()
            except SSL.Error as error:
                raise Refusal("cert", f"OpenSSL does not take it: {reason_of(error)}") from None
            return chain, pair

        chain, pair = self._read("pair", path, files, read)
        for key, note in chain.notes:
            self._warn((*path, key), note)
        if isinstance(entry, Certificate) and entry.ocsp:
            staple = self._staple(path, base / entry.ocsp, chain)
            pair = Pair(pair.names, pair.kind, pair.chain, pair.key, staple.der if staple else b"")
        elif isinstance(entry, Certificate) and chain.must_staple:
            self._warn((*path, "cert"), "asks for a stapled OCSP response, and 'ocsp' names none")
        return chain, pair

    def _staple(self, path: KeyPath, file: Path, chain: Chain) -> Staple | None:
        try:
            content = self._content(file)
            staple = read_staple("ocsp", content, chain)
        except Refusal as refusal:
            self._warn((*path, "ocsp"), f"{file}: {refusal}; nothing is stapled")
            return None
        if staple.next_update is not None and not self._is_ahead(staple.next_update):
            self._warn((*path, "ocsp"), f"{file}: out of date since {day(staple.next_update)}; nothing is stapled")
            return None
        return staple

    def _note_facts(self, owner: str, name: str, file: str, chain: Chain, path: KeyPath) -> None:
        self.facts.append(
            CertificateFacts(
                owner, name, file, chain.names, chain.key, chain.subject, chain.issuer, chain.serial, chain.fingerprint,
                chain.not_before, chain.not_after,
            )
        )  # fmt: skip
        if self._is_ahead(chain.not_before):
            self._warn((*path, "cert"), f"not valid before {day(chain.not_before)}")
        self._warn_of_end((*path, "cert"), chain.not_after)

    def _check_names(self, listener: Listener, side: ServerSide, path: KeyPath) -> None:
        names = [name for pair in side.pairs for name in pair.names]
        hostname = normal_hostname(listener.hostname)
        if hostname and not any(intersect_hostnames(hostname, name) is not None for name in names):
            self._warn(path, f"none of them carries a name of the listener's hostname '{hostname}'")

    # ---- authorities ----

    def _clients(self, client: ClientCertificate, path: KeyPath, base: Path) -> dict[str, Any]:
        bundle = self._bundle((*path, "ca"), base / client.ca)
        found: dict[str, Any] = {
            "ca": bundle.digest,
            "requires": client.mode == "require",
            "lets_through": client.mode == "insecureFallback",
            "depth": client.depth,
        }
        fate = "let in as nobody" if found["lets_through"] else "refused"
        return found | self._lists(client.crl, path, base, bundle, "client", fate)

    def _lists(self, name: str, path: KeyPath, base: Path, bundle: Bundle, whose: str, fate: str = "refused") -> dict[str, Any]:
        """The revocation lists of a bundle's authorities, for a ServerSide or ClientSide; nothing when no file is named.

        fate: of whom they do not speak for.
        """
        if not name:
            return {}
        file = base / name
        lists: Lists = self._read("crl", path, {"crl": file}, lambda crl: read_lists("crl", crl))
        if lists.next_update is not None and not self._is_ahead(lists.next_update):
            since = day(lists.next_update)
            self._warn((*path, "crl"), f"{file}: out of date since {since}; {whose}s of its authority are {fate}")
        # Of the system's authorities nothing is known here, so that each certificate is looked up on its own.
        if bundle.subjects and not bundle.subjects & lists.issuers:
            self._warn((*path, "crl"), f"{file}: has no list of any authority of 'ca'; every {whose} is {fate}")
        return {"crl": lists.pem, "crl_for_all": bool(bundle.issuers) and bundle.issuers <= lists.issuers}

    def _bundle(self, path: KeyPath, file: Path, read: Callable[[str, bytes], Bundle] = read_bundle) -> Bundle:
        key = str(path[-1])

        def take(content: bytes) -> Bundle:
            bundle = read(key, content)
            try:
                client_context(bundle.pem, None)
            except SSL.Error as error:
                raise Refusal(key, f"OpenSSL does not take it: {reason_of(error)}") from None
            return bundle

        bundle: Bundle = self._read("bundle", path[:-1], {key: file}, take)
        self.bundles[bundle.digest] = bundle.pem
        if bundle.not_after is not None:
            self._warn_of_end(path, bundle.not_after, what="an authority")
        return bundle

    # ---- files ----

    def _read(self, what: str, path: KeyPath, files: Mapping[str, Path], read: Callable[..., T]) -> T:
        """What the files come to; what they came to when they were good last; _Left when they never were."""
        name = (what, *map(str, files.values()))
        before = self.files.good.get(name) or self.known.good.get(name)
        contents: list[bytes] = []
        try:
            for key, file in files.items():
                try:
                    contents.append(self._content(file))
                except Refusal as refusal:
                    raise Refusal(key, str(refusal)) from None
            if before is None or before[0] != tuple(contents):
                before = (tuple(contents), read(*contents))
        except Refusal as refusal:
            message = f"{files.get(refusal.key, '')}: {refusal}"
            if before is None:
                self._say((*path, refusal.key), message)
                raise _Left from None
            self._say((*path, refusal.key), f"{message}; the last good one stays in use")
        self.files.good[name] = before
        found: T = before[1]
        return found

    def _content(self, file: Path) -> bytes:
        if file in self.given:
            return self.given[file]
        real = self._real(file)
        self.files.marks.setdefault(file, file_mark(file, real))
        try:
            if not stat.S_ISREG(os.stat(real).st_mode):
                raise Refusal("", "is not a file")
            with open(real, "rb") as opened:
                content = opened.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL"
            raise Refusal("", f"cannot be read: {reason}") from None
        if len(content) > MAX_FILE_BYTES:
            raise Refusal("", f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return content

    def _real(self, file: Path) -> Path:
        """In a mounted Secret all files of one look come from the directory that `..data` names at its begin."""
        directory = file.parent
        if directory not in self._swapped:
            link = directory / "..data"
            self._swapped[directory] = Path(os.path.realpath(link)) if link.is_symlink() else None
        frozen = self._swapped[directory]
        return frozen / file.name if frozen is not None and (frozen / file.name).exists() else file

    # ---- words and times ----

    def _say(self, path: KeyPath, message: str) -> None:
        self._told.add((path, message))
        self.findings.append(Finding(path, message, drops=False))

    def _warn(self, path: KeyPath, message: str) -> None:
        if (path, message) not in self._told:
            self._told.add((path, message))
            self.findings.append(warning(path, message))

    def _is_ahead(self, moment: datetime) -> bool:
        """Whether a moment is still to come; then the next look is due at it at the latest."""
        if moment <= self.now:
            return False
        self.due = moment if self.due is None else min(self.due, moment)
        return True

    def _warn_of_end(self, path: KeyPath, end: datetime, what: str = "") -> None:
        """Tells at the marks of WARNING_DAYS, in words that change at these marks alone."""
        subject = f"{what} " if what else ""
        if not self._is_ahead(end):
            self._warn(path, f"{subject}expired on {day(end)}")
            return
        near = [days for days in WARNING_DAYS if not self._is_ahead(end - timedelta(days=days))]
        if near:
            left = min(near)
            self._warn(path, f"{subject}expires on {day(end)}, in less than {left} {'day' if left == 1 else 'days'}")
