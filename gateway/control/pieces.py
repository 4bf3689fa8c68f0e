"""What a route, a cluster or a list of filters is packed to: rows of the snapshot whose references are still symbols.

A piece depends on nothing but what it is made of, and on the limits that rates name by number, so it is kept from one revision
to the next. gateway._core.link puts pieces together; gateway._core.snapshot describes the records.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from gateway._core.link import CLUSTER, NEED, OWN, TARGETS, TEXT, Piece
from gateway._core.snapshot import LAYOUT, compile_regex
from gateway.control.build import (
    Backend,
    Cluster,
    Cors,
    Filter,
    HeaderModifier,
    Match,
    PathRewrite,
    Redirect,
    Route,
    Rule,
    Session,
    ValueMatch,
)

NONE = 0xFFFFFFFF
MAX_DEPTH = 512
MAX_WEIGHT = 0xFFFFFFFF
MAX_FIELDS = 0xFFFFF

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

WIDTHS = {section: len(fields) for section, fields in LAYOUT.items()}
Fields = tuple[tuple[ValueMatch, ...], tuple[ValueMatch, ...]]
Words = tuple[int, ...]


class RuleError(Exception):
    """Why a route cannot be packed, and where in it."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def cut(value: int) -> int:
    """As much of it as a word holds."""
    return min(int(value), NONE)


@dataclass(slots=True)
class Draft:
    """A piece while it is written. What `add`, `text` and `need` answer stands among the words of other records."""

    sections: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    needs: dict[Piece, int] = field(default_factory=dict)
    clusters: dict[str, int] = field(default_factory=dict)
    targets: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, section: str, words: Iterable[int]) -> int:
        """Appends whole records; a reference to the first."""
        rows = self.sections.setdefault(section, [])
        first = len(rows) // WIDTHS[section]
        rows.extend(words)
        return OWN[section] | first

    def text(self, text: str) -> tuple[int, int]:
        """(reference, length in bytes)."""
        if not text:
            return 0, 0
        return TEXT | self.texts.setdefault(text, len(self.texts)), len(text) if text.isascii() else len(text.encode())

    def need(self, piece: Piece) -> int:
        """A reference to the first record of another piece."""
        return NEED | self.needs.setdefault(piece, len(self.needs))

    def cluster(self, name: str) -> int:
        """A reference to the record of the cluster of that name; NONE when there is none."""
        return CLUSTER | self.clusters.setdefault(name, len(self.clusters))

    def target(self, path_type: str, path: str, rank: int, row: Words) -> None:
        """A row for every vhost of the route, of those with the same path the one of the lower rank first."""
        self.targets.append((TARGETS[path_type], self.texts.setdefault(path, len(self.texts)), rank))
        self.sections.setdefault("rows", []).extend(row)

    def done(self, main: str) -> Piece:
        """A reference to the piece means its first record of that section."""
        return Piece(main, self.sections, tuple(self.texts), tuple(self.needs), tuple(self.clusters), tuple(self.targets))


class Press:
    """Makes pieces; parts that several share are made once, and forgotten with the last that needs them."""

    def __init__(self, rates: Mapping[int, int], unclaimed: frozenset[str]) -> None:
        """rates: index of a limit in the Model -> its record. unclaimed: clusters that will not be there."""
        self.rates = dict(rates)
        self.unclaimed = unclaimed
        self._shared: WeakValueDictionary[object, Piece] = WeakValueDictionary()

    # ---- clusters and limits ----

    def cluster(self, cluster: Cluster, id_: int) -> Piece:
        """Without its endpoints, which are no part of a snapshot."""
        draft = Draft()
        draft.add("clusters", (
            id_ & NONE, id_ >> 32, *draft.text(cluster.name), POLICIES[cluster.policy], KEY_KINDS[cluster.key_kind],
            *draft.text(cluster.key_name), CLUSTER_PROTOCOLS[cluster.protocol], cut(cluster.connect_timeout),
            cut(cluster.idle_timeout), cut(cluster.max_connections), cut(cluster.max_pending), cut(cluster.outlier_errors),
            cut(cluster.outlier_ejection), min(cluster.outlier_percent, 100), 1 if cluster.is_tls else NONE,
            *self._rates(draft, cluster.rates),
        ))  # fmt: skip
        return draft.done("clusters")

    def rate_list(self, rates: Words) -> tuple[Piece | None, int]:
        """The words that name these limits, and how many."""
        records = tuple(self.rates[rate] for rate in rates if rate in self.rates)
        if not records:
            return None, 0
        known = self._shared.get(records)
        if known is None:
            draft = Draft()
            draft.add("words", records)
            known = self._shared[records] = draft.done("words")
        return known, len(records)

    def _rates(self, draft: Draft, rates: Words) -> tuple[int, int]:
        piece, count = self.rate_list(rates)
        return (0, 0) if piece is None else (draft.need(piece), count)

    # ---- routes ----

    def route(self, route: Route, id_: int) -> Piece:
        """Its rules, and the rows by which its vhosts find them. RuleError when it cannot be packed."""
        draft = Draft()
        number = draft.add("routes", (id_ & NONE, id_ >> 32, *draft.text(route.name), ROUTE_KINDS[route.kind]))
        for rule in route.rules:
            if sum(backend.weight for backend in rule.backends) > MAX_WEIGHT:
                raise RuleError(("rules", rule.number), "the sum of the weights is too large")
            index = self._rule(draft, number, rule)
            for place, match in enumerate(rule.matches):
                try:
                    self._match(draft, index, match)
                except ValueError as failure:
                    raise RuleError(("rules", rule.number, "matches", place), str(failure)) from None
        return draft.done("routes")

    def _rule(self, draft: Draft, route: int, rule: Rule) -> int:
        backends = draft.need(self._backends(rule.backends)) if rule.backends else 0
        mirrors = [(draft.cluster(each.cluster), each.share) for each in rule.mirrors if each.cluster not in self.unclaimed]
        first_mirror = draft.add("mirrors", (word for mirror in mirrors for word in mirror)) if mirrors else 0
        return draft.add("rules", (
            route, rule.number, *self._filters(draft, rule.filters), backends, len(rule.backends),
            sum(backend.weight for backend in rule.backends), cut(rule.request_timeout), cut(rule.backend_timeout),
            self._retry(draft, rule), first_mirror, len(mirrors),
            NONE if rule.cors is None else draft.need(self._cors(rule.cors)), *self._rates(draft, rule.rates),
            NONE if rule.session is None else self._session(draft, rule.session),
        ))  # fmt: skip

    def _match(self, draft: Draft, rule: int, match: Match) -> None:
        if match.path_type == "PathPrefix" and match.path.count("/") > MAX_DEPTH:
            raise ValueError(f"a prefix of more than {MAX_DEPTH} elements")
        regex = draft.need(self._regex(match.path)) if match.path_type == "RegularExpression" else NONE
        fields = draft.need(self._fields((match.headers, match.query))) if match.headers or match.query else 0
        method, text = NONE, (0, 0)
        if match.method:
            method = METHODS.get(match.method, OTHER_METHOD)
            if method == OTHER_METHOD:
                text = draft.text(match.method)
        headers, queries = len(match.headers), len(match.query)
        # With a method first, then more headers, then more query parameters.
        rank = (method == NONE) << 40 | (MAX_FIELDS - headers) << 20 | (MAX_FIELDS - queries)
        draft.target(match.path_type, match.path, rank, (rule, method, *text, regex, fields, headers, queries))

    @staticmethod
    def _session(draft: Draft, session: Session) -> int:
        tail = ""
        if session.kind == "cookie":
            tail = "; Path=/; HttpOnly" + (f"; Max-Age={session.lifetime}" if session.is_permanent else "")
        words = (KEY_KINDS[session.kind], *draft.text(session.name), *draft.text(tail), session.lifetime)
        return draft.add("sessions", words)

    # ---- what several rules share ----

    def _backends(self, backends: tuple[Backend, ...]) -> Piece:
        known = self._shared.get(backends)
        if known is None:
            draft = Draft()
            packed: list[int] = []
            for backend in backends:
                record = NONE if backend.cluster is None else draft.cluster(backend.cluster)
                packed += (record, backend.weight, *self._filters(draft, backend.filters))
            draft.add("backends", packed)
            known = self._shared[backends] = draft.done("backends")
        return known

    def _retry(self, draft: Draft, rule: Rule) -> int:
        policy = (rule.attempts, rule.codes, rule.backoff)
        if not any(policy):
            return NONE
        known = self._shared.get(policy)
        if known is None:
            own = Draft()
            codes = own.add("words", rule.codes)
            own.add("retries", (cut(rule.attempts), codes, len(rule.codes), cut(rule.backoff)))
            known = self._shared[policy] = own.done("retries")
        return draft.need(known)

    def _filters(self, draft: Draft, filters: tuple[Filter, ...]) -> tuple[int, int]:
        """(first, count)."""
        if not filters:
            return 0, 0
        known = self._shared.get(filters)
        if known is None:
            own = Draft()
            own.add("filters", [word for each in filters for word in self._filter(own, each)])
            known = self._shared[filters] = own.done("filters")
        return draft.need(known), len(filters)

    def _filter(self, draft: Draft, spec: Filter) -> Words:
        if isinstance(spec, HeaderModifier):
            edits = [(EDIT_SET, *draft.text(name), *draft.text(value)) for name, value in spec.set]
            edits += [(EDIT_ADD, *draft.text(name), *draft.text(value)) for name, value in spec.add]
            edits += [(EDIT_REMOVE, *draft.text(name), 0, 0) for name in spec.remove]
            first = draft.add("edits", (word for edit in edits for word in edit))
            kind = REQUEST_HEADERS if spec.on == "request" else RESPONSE_HEADERS
            return (kind, first, len(edits), 0, 0, 0, 0, 0, 0, PATH_KEEP, 0, 0)
        host, path = draft.text(spec.hostname), self._path(draft, spec.path)
        if isinstance(spec, Redirect):
            return (REDIRECT, 0, 0, spec.status, *draft.text(spec.scheme), *host, spec.port, *path)
        return (REWRITE, 0, 0, 0, 0, 0, *host, 0, *path)

    def _path(self, draft: Draft, path: PathRewrite | None) -> Words:
        if path is None:
            return (PATH_KEEP, 0, 0)
        return (PATH_FULL if path.kind == "full" else PATH_PREFIX, *draft.text(path.value))

    def _fields(self, fields: Fields) -> Piece:
        """Conditions on headers, then those on query parameters. ValueError when RE2 does not take a pattern."""
        known = self._shared.get(fields)
        if known is None:
            draft = Draft()
            packed: list[int] = []
            for match in (*fields[0], *fields[1]):
                if match.is_regex:
                    packed += (*draft.text(match.name), 0, 0, draft.need(self._regex(match.value)))
                else:
                    packed += (*draft.text(match.name), *draft.text(match.value), NONE)
            draft.add("matches", packed)
            known = self._shared[fields] = draft.done("matches")
        return known

    def _regex(self, pattern: str) -> Piece:
        """ValueError when RE2 does not take it."""
        known = self._shared.get(pattern)
        if known is None:
            compile_regex(pattern.encode())
            draft = Draft()
            draft.add("regexes", draft.text(pattern))
            known = self._shared[pattern] = draft.done("regexes")
        return known

    def _cors(self, cors: Cors) -> Piece:
        known = self._shared.get(cors)
        if known is None:
            draft = Draft()
            patterns = [each for each in cors.origins if each != "*"]
            flags = CORS_ANY_ORIGIN if "*" in cors.origins else 0
            flags |= (CORS_ANY_METHOD if "*" in cors.methods else 0) | (CORS_ANY_HEADER if "*" in cors.headers else 0)
            flags |= CORS_CREDENTIALS if cors.credentials else 0
            # Where credentials are a star is a name like any other, and there is no header of that name.
            expose = [each for each in cors.expose if not (cors.credentials and each == "*")]
            first = draft.add("origins", (word for each in patterns for word in draft.text(each)))
            draft.add("cors", (
                first, len(patterns), flags, *draft.text(", ".join(cors.methods)), *draft.text(", ".join(cors.headers)),
                *draft.text(", ".join(expose)), *draft.text(str(cors.max_age)),
            ))  # fmt: skip
            known = self._shared[cors] = draft.done("cors")
        return known
