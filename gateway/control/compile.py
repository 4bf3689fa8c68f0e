"""Model -> snapshot blob: the flat records that gateway._core.snapshot describes and the router walks.

All decisions about precedence fall here: rows of one path stand in the order in which the router may take the first that matches.
The same Model gives the same bytes. What cannot be packed is left out with a Problem, and the rest goes on.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from gateway._core.snapshot import LAYOUT, SECTION_NAMES, compile_regex, hash32, pack_header, seal
from gateway.control.build import (
    Cluster,
    Cors,
    Filter,
    HeaderModifier,
    Listener,
    Match,
    Model,
    PathRewrite,
    Redirect,
    Route,
    Rule,
    ValueMatch,
)
from gateway.control.compile_limits import pack_limits
from gateway.model.problem import Problem

NONE = 0xFFFFFFFF
ALIGN = 8
MAX_DEPTH = 512
MAX_WEIGHT = 0xFFFFFFFF
DEPTH_BITS = 31

PROTOCOLS = {"HTTP": 0, "HTTPS": 1, "TLS": 2, "TCP": 3}
ENDED = 4
"""Of a listener of protocol TLS that ends it."""
ROUTE_KINDS = {"HTTPRoute": 0, "GRPCRoute": 1, "TLSRoute": 2, "TCPRoute": 3}
POLICIES = {"RoundRobin": 0, "LeastRequest": 1, "Random": 2, "ConsistentHash": 3}
KEY_KINDS = {"none": 0, "header": 1, "cookie": 2, "query": 3, "clientAddress": 4}
CLUSTER_PROTOCOLS = {"HTTP1": 0, "HTTP2": 1, "auto": 2}
METHODS = {"GET": 1, "HEAD": 2, "POST": 3, "PUT": 4, "DELETE": 5, "OPTIONS": 6, "PATCH": 7, "TRACE": 8, "CONNECT": 9}
OTHER_METHOD = 0
REQUEST_HEADERS, RESPONSE_HEADERS, REDIRECT, REWRITE = 1, 2, 3, 4
PATH_KEEP, PATH_FULL, PATH_PREFIX = 0, 1, 2
EDIT_SET, EDIT_ADD, EDIT_REMOVE = 0, 1, 2
CORS_ANY_ORIGIN, CORS_ANY_METHOD, CORS_ANY_HEADER, CORS_CREDENTIALS = 1, 2, 4, 8

Words = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A blob and what the control plane must know beside it."""

    blob: bytes
    problems: list[Problem]
    names: dict[int, tuple[str, str]]
    """64-bit id -> (kind, name) of everything that counters and logs speak of: bind, listener, route, cluster, rateLimit."""
    clusters: dict[str, int]
    """Name -> id, the key of a cluster's endpoint table."""
    ports: dict[str, int]
    """Bound address -> id, for Engine.listen."""


def name_id(kind: str, name: str) -> int:
    """The 64-bit id of a name, equal in every process and revision. Never 0, which stands for "none"."""
    return int.from_bytes(blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest(), "little") or 1


def compile_model(model: Model, revision: int = 0) -> Compiled:
    """Packs the Model. Raises nothing for what a configuration can hold; ValueError only when it does not fit 4 GiB."""
    packer = _Packer(model)
    packer.pack()
    return Compiled(
        blob=packer.blob(revision),
        problems=packer.problems,
        names=packer.names,
        clusters={model.clusters[number].name: id_ for number, id_ in packer.cluster_ids.items()},
        ports={port.address: name_id("bind", port.address) for port in model.ports},
    )


@dataclass(slots=True)
class _Target:
    """One match of one rule, ready to stand in any vhost."""

    path_type: str
    path: bytes
    order: tuple[bool, int, int]
    """Of rows with the same path: with a method first, then more headers, then more query parameters. Rows that are equal in this
    keep the order in which they were added: route by route, rule by rule, match by match."""
    words: Words
    regex: int


@dataclass(slots=True)
class _Vhost:
    targets: list[_Target] = field(default_factory=list)


def _host_key(hostname: str) -> str:
    return hostname[1:] if hostname.startswith("*") else hostname


def _host_hash(key: str) -> int:
    return hash32(key.encode()[::-1])


def build_table(entries: Sequence[Words], free: Words) -> tuple[list[Words], int]:
    """Open addressing with linear probing over entries that begin with their hash; (slots, mask). At most half full."""
    size = 1 << (2 * len(entries) - 1).bit_length() if entries else 1
    mask = size - 1
    slots = [free] * size
    for entry in entries:
        at = entry[0] & mask
        while slots[at] is not free:
            at = (at + 1) & mask
        slots[at] = entry
    return slots, mask


class _Packer:
    """One run. Sections grow as flat lists of u32 words."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.problems: list[Problem] = []
        self.names: dict[int, tuple[str, str]] = {}
        self.words: dict[str, list[int]] = {name: [] for name in LAYOUT}
        self.strings = bytearray()
        self.places: dict[str, tuple[int, int]] = {"": (0, 0)}
        self.regexes: dict[str, int] = {}
        self.limits: dict[Words, int] = {}
        self.filters: dict[tuple[Filter, ...], tuple[int, int]] = {(): (0, 0)}
        self.cors: dict[Cors | None, int] = {None: NONE}
        self.matches: dict[tuple[tuple[ValueMatch, ...], tuple[ValueMatch, ...]], int] = {((), ()): 0}
        self.contents: dict[tuple[int, ...], Words] = {}
        self.cluster_ids: dict[int, int] = {}
        self.cluster_records: dict[int, int] = {}
        self.rate_records: dict[int, int] = {}
        self.rate_lists: dict[Words, int] = {(): 0}

    # --- primitives ---

    def add(self, section: str, words: Iterable[int]) -> int:
        """Appends whole records; the index of the first."""
        rows = self.words[section]
        first = len(rows) // len(LAYOUT[section])
        rows.extend(words)
        return first

    def text(self, text: str) -> tuple[int, int]:
        """(offset, length) of the text in the string section, where each text stands once."""
        place = self.places.get(text)
        if place is None:
            raw = text.encode()
            place = self.places[text] = (len(self.strings), len(raw))
            self.strings += raw
        return place

    def regex(self, pattern: str) -> int:
        """Index of the pattern; ValueError when RE2 does not take it."""
        index = self.regexes.get(pattern)
        if index is None:
            _check_regex(pattern)
            index = self.regexes[pattern] = self.add("regexes", self.text(pattern))
        return index

    def claim(self, kind: str, name: str) -> int | None:
        """The id of a name; None, with a Problem, when another name has the same one."""
        id_ = name_id(kind, name)
        owner = self.names.setdefault(id_, (kind, name))
        if owner != (kind, name):
            self.report((kind + "s", name), f"its id is that of the {owner[0]} '{owner[1]}'; rename one of them")
            return None
        return id_

    def report(self, path: tuple[str | int, ...], message: str) -> None:
        key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]
        self.problems.append(Problem(severity="error", message=message, key=key))

    # --- the whole ---

    def pack(self) -> None:
        route_ids = {route.name: name_id("route", route.name) for route in self.model.routes}
        self.rate_records = pack_limits(self.model.rates, self.add, self.text, self.claim, route_ids)
        for number, cluster in enumerate(self.model.clusters):
            self.pack_cluster(number, cluster)
        vhosts: list[dict[str, _Vhost]] = [{} for _ in self.model.listeners]
        for route in self.model.routes:
            self.pack_route(route, vhosts)
        self.pack_ports(vhosts)

    def blob(self, revision: int) -> bytes:
        sections = [array("I", self.words[name]).tobytes() for name in LAYOUT]
        counts = [len(self.words[name]) // len(LAYOUT[name]) for name in LAYOUT]
        counts.append(len(self.strings))
        table = array("I")
        offset = len(pack_header(0, 0)) + 8 * len(SECTION_NAMES)
        for count, section in zip(counts, [*sections, b""], strict=True):
            table.extend((offset, count))
            offset += len(section)
        size = -(-(offset + len(self.strings)) // ALIGN) * ALIGN
        blob = bytearray().join((pack_header(size, revision), table.tobytes(), *sections, self.strings))
        blob.extend(bytes(size - len(blob)))
        seal(blob)
        return bytes(blob)

    # --- clusters, filters, rules ---

    def pack_rates(self, rates: Words) -> tuple[int, int]:
        """(first, count) of the words that name these limits; equal lists are packed once."""
        records = tuple(self.rate_records[rate] for rate in rates if rate in self.rate_records)
        if records not in self.rate_lists:
            self.rate_lists[records] = self.add("words", records)
        return self.rate_lists[records], len(records)

    def pack_cluster(self, number: int, cluster: Cluster) -> None:
        id_ = self.claim("cluster", cluster.name)
        if id_ is None:
            return
        self.cluster_ids[number] = id_
        self.cluster_records[number] = self.add("clusters", (
            id_ & NONE, id_ >> 32, *self.text(cluster.name), POLICIES[cluster.policy], KEY_KINDS[cluster.key_kind],
            *self.text(cluster.key_name), CLUSTER_PROTOCOLS[cluster.protocol], _cut(cluster.connect_timeout),
            _cut(cluster.idle_timeout), _cut(cluster.max_connections), _cut(cluster.max_pending), _cut(cluster.outlier_errors),
            _cut(cluster.outlier_ejection), min(cluster.outlier_percent, 100), 1 if cluster.is_tls else NONE,
            *self.pack_rates(cluster.rates),
        ))  # fmt: skip

    def pack_filters(self, filters: Sequence[Filter]) -> tuple[int, int]:
        """(first, count); equal lists are packed once."""
        key = tuple(filters)
        place = self.filters.get(key)
        if place is None:
            packed = [word for each in key for word in self.filter_words(each)]
            place = self.filters[key] = (self.add("filters", packed), len(key))
        return place

    def filter_words(self, spec: Filter) -> Words:
        if isinstance(spec, HeaderModifier):
            edits = [(EDIT_SET, *self.text(name), *self.text(value)) for name, value in spec.set]
            edits += [(EDIT_ADD, *self.text(name), *self.text(value)) for name, value in spec.add]
            edits += [(EDIT_REMOVE, *self.text(name), 0, 0) for name in spec.remove]
            first = self.add("edits", (word for edit in edits for word in edit))
            kind = REQUEST_HEADERS if spec.on == "request" else RESPONSE_HEADERS
            return (kind, first, len(edits), 0, 0, 0, 0, 0, 0, PATH_KEEP, 0, 0)
        host, path = self.text(spec.hostname), self.path_words(spec.path)
        if isinstance(spec, Redirect):
            return (REDIRECT, 0, 0, spec.status, *self.text(spec.scheme), *host, spec.port, *path)
        return (REWRITE, 0, 0, 0, 0, 0, *host, 0, *path)

    def path_words(self, path: PathRewrite | None) -> Words:
        if path is None:
            return (PATH_KEEP, 0, 0)
        return (PATH_FULL if path.kind == "full" else PATH_PREFIX, *self.text(path.value))

    def pack_route(self, route: Route, vhosts: list[dict[str, _Vhost]]) -> None:
        try:
            prepared = [(rule, self.prepare(rule)) for rule in route.rules]
        except _RuleError as failure:
            self.report(("routes", route.name, *failure.path), f"{failure}; the route is left out")
            return
        id_ = self.claim("route", route.name)
        if id_ is None:
            return
        number = self.add("routes", (id_ & NONE, id_ >> 32, *self.text(route.name), ROUTE_KINDS[route.kind]))
        targets: list[_Target] = []
        for rule, matches in prepared:
            index = self.pack_rule(number, rule)
            for match, fields, regex in matches:
                targets.append(self.target(index, match, fields, regex))
        for attachment in route.attachments:
            hosts = vhosts[attachment.listener]
            for hostname in attachment.hostnames:
                vhost = hosts.get(hostname)
                if vhost is None:
                    vhost = hosts[hostname] = _Vhost()
                vhost.targets.extend(targets)

    def prepare(self, rule: Rule) -> list[tuple[Match, int, int]]:
        """(match, its first FieldMatch, its path's regex) of each match. Everything that may be refused is asked here, before
        anything of the route is packed; what it leaves behind is patterns, which are harmless."""
        if sum(backend.weight for backend in rule.backends) > MAX_WEIGHT:
            raise _RuleError(("rules", rule.number), "the sum of the weights is too large")
        prepared = []
        for number, match in enumerate(rule.matches):
            try:
                regex = self.regex(match.path) if match.path_type == "RegularExpression" else NONE
                fields = self.fields(match.headers, match.query)
            except ValueError as failure:
                raise _RuleError(("rules", rule.number, "matches", number), str(failure)) from None
            if match.path_type == "PathPrefix" and match.path.count("/") > MAX_DEPTH:
                raise _RuleError(("rules", rule.number, "matches", number), f"a prefix of more than {MAX_DEPTH} elements")
            prepared.append((match, fields, regex))
        return prepared

    def fields(self, headers: tuple[ValueMatch, ...], query: tuple[ValueMatch, ...]) -> int:
        """First FieldMatch of these conditions; equal lists are packed once."""
        key = (headers, query)
        first = self.matches.get(key)
        if first is None:
            packed: list[int] = []
            for match in (*headers, *query):
                if match.is_regex:
                    packed += (*self.text(match.name), 0, 0, self.regex(match.value))
                else:
                    packed += (*self.text(match.name), *self.text(match.value), NONE)
            first = self.matches[key] = self.add("matches", packed)
        return first

    def pack_rule(self, route: int, rule: Rule) -> int:
        packed: list[int] = []
        for backend in rule.backends:
            record = NONE if backend.cluster is None else self.cluster_records.get(backend.cluster, NONE)
            packed += (record, backend.weight, *self.pack_filters(backend.filters))
        backends = self.add("backends", packed)
        codes = self.add("words", rule.codes)
        known = self.cluster_records
        mirrors = [(known[each.cluster], each.share) for each in rule.mirrors if each.cluster in known]
        first_mirror = self.add("mirrors", (word for mirror in mirrors for word in mirror)) if mirrors else 0
        return self.add("rules", (
            route, rule.number, *self.pack_filters(rule.filters), backends, len(rule.backends),
            sum(backend.weight for backend in rule.backends), _cut(rule.request_timeout), _cut(rule.backend_timeout),
            _cut(rule.attempts), codes, len(rule.codes), _cut(rule.backoff), first_mirror, len(mirrors), self.pack_cors(rule.cors),
            *self.pack_rates(rule.rates),
        ))  # fmt: skip

    def pack_cors(self, cors: Cors | None) -> int:
        """Index of the record; equal ones are packed once."""
        index = self.cors.get(cors)
        if index is None:
            assert cors is not None
            patterns = [each for each in cors.origins if each != "*"]
            flags = CORS_ANY_ORIGIN if "*" in cors.origins else 0
            flags |= (CORS_ANY_METHOD if "*" in cors.methods else 0) | (CORS_ANY_HEADER if "*" in cors.headers else 0)
            flags |= CORS_CREDENTIALS if cors.credentials else 0
            # Where credentials are a star is a name like any other, and there is no header of that name.
            expose = [each for each in cors.expose if not (cors.credentials and each == "*")]
            first = self.add("origins", (word for each in patterns for word in self.text(each)))
            index = self.cors[cors] = self.add("cors", (
                first, len(patterns), flags, *self.text(", ".join(cors.methods)), *self.text(", ".join(cors.headers)),
                *self.text(", ".join(expose)), *self.text(str(cors.max_age)),
            ))  # fmt: skip
        return index

    def target(self, rule: int, match: Match, fields: int, regex: int) -> _Target:
        method, text = NONE, (0, 0)
        if match.method:
            method = METHODS.get(match.method, OTHER_METHOD)
            if method == OTHER_METHOD:
                text = self.text(match.method)
        words = (rule, method, *text, regex, fields, len(match.headers), len(match.query))
        order = (method == NONE, -len(match.headers), -len(match.query))
        return _Target(match.path_type, match.path.encode(), order, words, regex)

    # --- ports, listeners, hosts ---

    def pack_ports(self, vhosts: list[dict[str, _Vhost]]) -> None:
        # A port's listeners stand in a row, so they are packed port by port.
        for number, port in enumerate(self.model.ports):
            id_ = name_id("bind", port.address)
            self.claim("bind", port.address)
            first = len(self.words["listeners"]) // len(LAYOUT["listeners"])
            hosts: dict[str, int] = {}
            for index in port.listeners:
                listener = self.model.listeners[index]
                record = self.pack_listener(number, listener, vhosts[index])
                if hosts.setdefault(_host_key(listener.hostname), record) != record:
                    message = "another listener of this port has the same hostname; this one takes no request"
                    self.report(("listeners", listener.name), message)
            self.add("ports", (
                id_ & NONE, id_ >> 32, *self.text(port.address), first, len(port.listeners), *self.pack_hosts(hosts),
                int(port.proxy_protocol),
            ))  # fmt: skip

    def pack_listener(self, port: int, listener: Listener, vhosts: dict[str, _Vhost]) -> int:
        id_ = name_id("listener", listener.name)
        self.claim("listener", listener.name)
        protocol = ENDED if listener.protocol == "TLS" and listener.ends_tls else PROTOCOLS[listener.protocol]
        limits = listener.limits
        words = (
            _cut(limits.max_header_count), _cut(limits.max_header_bytes), _cut(limits.max_request_line),
            _cut(limits.header_timeout), _cut(limits.idle_timeout), _cut(limits.body_timeout), _cut(limits.stream_idle_timeout),
            _cut(limits.max_connections),
            limits.max_body_size & NONE, limits.max_body_size >> 32 & NONE, _cut(limits.max_requests_per_connection),
            _cut(limits.max_connection_age),
        )  # fmt: skip
        if words not in self.limits:
            self.limits[words] = self.add("limits", words)
        hosts = {_host_key(hostname): self.pack_vhost(_host_key(hostname), vhosts[hostname]) for hostname in sorted(vhosts)}
        return self.add("listeners", (
            id_ & NONE, id_ >> 32, *self.text(listener.name), *self.text(listener.hostname), port, listener.public_port,
            protocol, listener.trusted_hops, self.limits[words], *self.pack_hosts(hosts),
            *self.pack_rates(listener.rates),
        ))  # fmt: skip

    def pack_hosts(self, hosts: dict[str, int]) -> tuple[int, int]:
        """(first slot, mask) of a host table."""
        entries = [(_host_hash(key), *self.text(key), value) for key, value in hosts.items()]
        slots, mask = build_table(entries, (0, 0, 0, NONE))
        return self.add("hosts", (word for slot in slots for word in slot)), mask

    def pack_vhost(self, key: str, vhost: _Vhost) -> int:
        content = tuple(map(id, vhost.targets))
        words = self.contents.get(content)
        if words is None:
            words = self.contents[content] = self.pack_paths(vhost.targets)
        return self.add("vhosts", (*self.text(key), *words))

    def pack_paths(self, targets: list[_Target]) -> Words:
        """A vhost's words after its host. Vhosts with the same content, such as a route's several hostnames, share its tables."""
        exact: dict[bytes, list[_Target]] = {}
        prefix: dict[bytes, list[_Target]] = {}
        patterns: list[_Target] = []
        for target in targets:
            if target.path_type == "PathPrefix":
                prefix.setdefault(target.path, []).append(target)
            elif target.path_type == "Exact":
                exact.setdefault(target.path, []).append(target)
            else:
                patterns.append(target)
        entries: list[Words] = []
        for path in exact | prefix:
            own, wide = exact.get(path, ()), prefix.get(path, ())
            rows = self.pack_rows(own)
            self.pack_rows(wide)
            entries.append((hash32(path), *self.text(path.decode()), rows, len(own), len(wide)))
        slots, mask = build_table(entries, (0, 0, 0, NONE, 0, 0))
        paths = self.add("paths", (word for slot in slots for word in slot))
        depths = {path.count(b"/") for path in prefix}
        bits = 0
        for depth in depths:
            bits |= 1 << min(depth, DEPTH_BITS)
        # The longer pattern is taken for the more specific one; equal patterns stand together, so that one is asked once.
        patterns.sort(key=lambda target: (-len(target.path), target.path, target.order))
        rows = self.add("rows", (word for target in patterns for word in target.words))
        return (paths, mask, bits, max(depths, default=0), max(map(len, exact), default=0), rows, len(patterns))

    def pack_rows(self, targets: Sequence[_Target]) -> int:
        if len(targets) > 1:
            targets = sorted(targets, key=lambda target: target.order)
        return self.add("rows", (word for target in targets for word in target.words))


class _RuleError(Exception):
    """Why a route cannot be packed, and where in it."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


_good_patterns: set[str] = set()


def _check_regex(pattern: str) -> None:
    if pattern in _good_patterns:
        return
    compile_regex(pattern.encode())
    if len(_good_patterns) >= 100_000:
        _good_patterns.clear()
    _good_patterns.add(pattern)


def _cut(value: int) -> int:
    return min(int(value), NONE)
