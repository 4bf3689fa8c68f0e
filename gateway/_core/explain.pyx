"""The router's answers for people: `isthmus route`, the tests and the measurements ask the very code that serves.

Owns nothing. A request is written into a HeaderBlock as a codec would leave it, and every row of the listener is asked with the
router's own conditions. Nothing here is on the path of a request.
"""

from gateway._core.chain cimport Redirect, run_request_filters, run_response_filters
from gateway._core.faults cimport fault_name
from gateway._core.headers cimport FIELD_DROP, HeaderBlock
from gateway._core.router cimport (
    Decision, ask_regex, find_port, find_row, is_header_match, is_method_match, is_query_match, route_request,
)
from gateway._core.snapshot cimport NONE, FieldMatch, ListenerRec, PathSlot, Row, RuleRec, Snapshot, Str, VhostRec, id64
from gateway._core.target cimport normalise_path, parse_authority
from gateway._core.tokens cimport token_of
from gateway._core.types cimport Method, Ref, Span, uint8_t, uint32_t, uint64_t

from time import perf_counter_ns

cdef dict METHODS = {
    b"GET": Method.M_GET, b"HEAD": Method.M_HEAD, b"POST": Method.M_POST, b"PUT": Method.M_PUT, b"DELETE": Method.M_DELETE,
    b"OPTIONS": Method.M_OPTIONS, b"PATCH": Method.M_PATCH, b"TRACE": Method.M_TRACE, b"CONNECT": Method.M_CONNECT,
}


cdef int keep_bytes(HeaderBlock head, bytes text, Ref *ref) except -1:
    ref[0] = head.keep(<const uint8_t *> <const char *> text, <size_t> len(text))
    if ref.off == NONE:
        raise MemoryError()
    return 0


cdef int add_fields(HeaderBlock head, object headers) except -1:
    cdef bytes name
    cdef bytes value
    for name, value in headers:
        name = name.lower()
        if head.add(token_of(<const uint8_t *> <const char *> name, <size_t> len(name)),
                    <const uint8_t *> <const char *> name, <size_t> len(name),
                    <const uint8_t *> <const char *> value, <size_t> len(value)) < 0:
            raise MemoryError()
    return 0


cdef int fill_head(HeaderBlock head, bytes method, bytes host, bytes path, object query, object headers) except -1:
    """A request as the codec would leave it: 0, or the Fault that would have been its answer."""
    cdef bytes room
    cdef Ref kept
    cdef int rc
    kept.off = 0
    kept.n = 0
    head.clear()
    head.version = 11
    head.method = METHODS.get(method, Method.M_OTHER)
    keep_bytes(head, method, &head.method_text)
    if host:
        keep_bytes(head, host, &kept)
        rc = parse_authority(head, kept)
        if rc < 0:
            return -rc
    if path == b"*":
        keep_bytes(head, path, &head.path)
    else:
        room = bytes(len(path))
        rc = normalise_path(<const uint8_t *> <const char *> path, <size_t> len(path), <uint8_t *> <char *> room)
        if rc < 0:
            return -rc
        keep_bytes(head, room[:rc], &head.path)
    if query is not None:
        head.has_query = True
        keep_bytes(head, query, &head.query)
    add_fields(head, headers)
    return 0


cdef object pattern_of(Snapshot s, uint32_t regex, Str value):
    return (s.text_of(s.patterns[regex]) if regex != NONE else s.text_of(value), regex != NONE)


cdef str row_verdict(Snapshot s, HeaderBlock head, const Row *row):
    """The first condition beside host and path that does not hold, as "method", "header:NAME", "query:NAME"; "" when all hold."""
    cdef uint32_t i
    cdef const FieldMatch *match
    if not is_method_match(s, head, row):
        return "method"
    for i in range(row.headers_n):
        match = s.matches + row.matches + i
        if not is_header_match(s, head, match):
            return f"header:{s.text_of(match.name)}"
    for i in range(row.queries_n):
        match = s.matches + row.matches + row.headers_n + i
        if not is_query_match(s, head, match):
            return f"query:{s.text_of(match.name)}"
    return ""


cdef dict describe_row(Snapshot s, const Row *row, str host, str path_type, str path):
    cdef uint32_t i
    cdef uint32_t n = row.headers_n + row.queries_n
    cdef const RuleRec *rule = s.rules + row.rule
    cdef const FieldMatch *match
    cdef list fields = []
    for i in range(n):
        match = s.matches + row.matches + i
        fields.append((s.text_of(match.name), *pattern_of(s, match.regex, match.value)))
    method = ""
    for name, number in METHODS.items():
        if row.method == <uint32_t> number:
            method = name.decode()
    if row.method == Method.M_OTHER:
        method = s.text_of(row.method_text)
    return {
        "route": s.text_of(s.routes[rule.route].name),
        "rule": rule.number,
        "host": host,
        "path_type": path_type,
        "path": path,
        "method": method,
        "headers": fields[:row.headers_n],
        "query": fields[row.headers_n:],
    }


cdef bint is_host_of(str pattern, str host) except -1:
    """Whether a vhost's host ("" any, ".x" below x) takes the host."""
    if not pattern:
        return True
    if pattern.startswith("."):
        return host.endswith(pattern) and len(host) > len(pattern) and not host.startswith(".")
    return host == pattern


cdef list list_rows(Snapshot s, const VhostRec *vhost, HeaderBlock head):
    """(row index, description, verdict) of every row of a vhost, in precedence order but for the order of the paths."""
    cdef list rows = []
    cdef str host = s.text_of(vhost.host)
    cdef Span asked = head.borrow(head.path)
    cdef bytes path = asked.p[:asked.n]
    cdef bytes key
    cdef const PathSlot *slot
    cdef const Row *row
    cdef uint32_t i
    cdef uint32_t j
    cdef uint32_t at
    host_fits = is_host_of(host, s_host(head))
    host = f"*{host}" if host.startswith(".") else host
    for i in range(vhost.paths_mask + 1):
        slot = s.paths + vhost.paths + i
        if slot.rows == NONE:
            continue
        key = s.bytes_of(slot.path)
        for j in range(slot.exact_n + slot.prefix_n):
            at = slot.rows + j
            row = s.rows + at
            if j < slot.exact_n:
                path_fits = path == key
                described = describe_row(s, row, host, "Exact", key.decode("latin-1"))
            else:
                path_fits = path.startswith(key) and path[len(key):len(key) + 1] in (b"", b"/") or not key
                described = describe_row(s, row, host, "PathPrefix", key.decode("latin-1") or "/")
            rows.append((at, described, "host" if not host_fits else "path" if not path_fits else row_verdict(s, head, row)))
    for i in range(vhost.regex_rows_n):
        at = vhost.regex_rows + i
        row = s.rows + at
        path_fits = ask_regex(s, row.regex, asked.p, asked.n)
        described = describe_row(s, row, host, "RegularExpression", s.text_of(s.patterns[row.regex]))
        rows.append((at, described, "host" if not host_fits else "path" if not path_fits else row_verdict(s, head, row)))
    return rows


cdef str s_host(HeaderBlock head):
    cdef Span host = head.borrow(head.host)
    return host.p[:host.n].decode("latin-1")


def port_ids(Snapshot snapshot not None):
    """(id, address) of every port."""
    cdef uint32_t i
    ports = []
    for i in range(snapshot.ports_n):
        ports.append((id64(snapshot.ports[i].id_lo, snapshot.ports[i].id_hi), snapshot.text_of(snapshot.ports[i].address)))
    return ports


def explain_route(Snapshot snapshot not None, uint64_t port_id, bytes method not None, bytes host not None, bytes path not None,
                  bytes query=None, headers=(), bint candidates=True):
    """What route_request decides about a request, and of every rule of the listener why it did or did not answer."""
    cdef HeaderBlock head = HeaderBlock.new()
    cdef Decision decision
    cdef const ListenerRec *listener
    cdef uint32_t port = find_port(snapshot, <uint32_t> (port_id & NONE), <uint32_t> (port_id >> 32))
    cdef uint32_t row
    cdef uint32_t i
    cdef int fault
    cdef list rows = []
    answer = {"fault": None, "listener": None, "listeners": [], "host": "", "path": "", "route": None, "rule": None, "rule_index": None,
              "prefix": 0, "winner": None, "rows": rows}
    if port == NONE:
        return answer
    for i in range(snapshot.ports[port].listeners, snapshot.ports[port].listeners + snapshot.ports[port].listeners_n):
        answer["listeners"].append((snapshot.text_of(snapshot.listeners[i].name), snapshot.text_of(snapshot.listeners[i].hostname)))
    fault = fill_head(head, method, host, path, query, headers)
    if fault:
        answer["fault"] = fault_name(fault).decode()
        return answer
    answer["host"] = s_host(head)
    answer["path"] = bytes_of_ref(head, head.path).decode("latin-1")
    row = find_row(snapshot, port, head, &decision)
    if decision.listener == NONE:
        return answer
    listener = snapshot.listeners + decision.listener
    answer["listener"] = snapshot.text_of(listener.name)
    if row != NONE:
        answer["route"] = snapshot.text_of(snapshot.routes[snapshot.rules[decision.rule].route].name)
        answer["rule"] = snapshot.rules[decision.rule].number
        answer["rule_index"] = decision.rule
        answer["prefix"] = decision.prefix
        answer["winner"] = row
    if candidates:
        for i in range(listener.hosts, listener.hosts + listener.hosts_mask + 1):
            if snapshot.hosts[i].value != NONE:
                rows.extend(list_rows(snapshot, snapshot.vhosts + snapshot.hosts[i].value, head))
    return answer


cdef list live_fields(HeaderBlock head):
    cdef uint32_t i
    cdef Span name
    cdef Span value
    cdef list fields = []
    for i in range(head.count):
        if not head.fields[i].flags & FIELD_DROP:
            name = head.borrow_name(&head.fields[i])
            value = head.borrow_value(&head.fields[i])
            fields.append((name.p[:name.n], value.p[:value.n]))
    return fields


cdef bytes bytes_of_ref(HeaderBlock head, Ref ref):
    cdef Span span = head.borrow(ref)
    return span.p[:span.n]


def preview_request(Snapshot snapshot not None, uint64_t port_id, bytes method not None, bytes host not None, bytes path not None,
                    bytes query=None, headers=(), bint secure=False):
    """What the filters of the rule that answers make of a request: a fault, a redirect, or the head that a backend would see."""
    cdef HeaderBlock head = HeaderBlock.new()
    cdef Decision decision
    cdef Redirect redirect
    cdef const RuleRec *rule
    cdef uint32_t port = find_port(snapshot, <uint32_t> (port_id & NONE), <uint32_t> (port_id >> 32))
    cdef int rc = -fill_head(head, method, host, path, query, headers)
    redirect.status = 0
    if rc == 0:
        if find_row(snapshot, port, head, &decision) == NONE:
            return None
        rule = snapshot.rules + decision.rule
        rc = run_request_filters(snapshot, rule.filters, rule.filters_n, head, &decision, secure,
                                 snapshot.listeners[decision.listener].port_number, &redirect)
    if rc < 0:
        return {"fault": fault_name(-rc).decode()}
    if rc > 0:
        return {"status": redirect.status, "location": bytes_of_ref(head, redirect.location)}
    return {
        "authority": bytes_of_ref(head, head.authority),
        "host": bytes_of_ref(head, head.host),
        "path": bytes_of_ref(head, head.path),
        "query": bytes_of_ref(head, head.query) if head.has_query else None,
        "headers": live_fields(head),
    }


def preview_response(Snapshot snapshot not None, uint32_t rule_index, list headers not None):
    """What the filters of a rule make of the fields of a response."""
    cdef HeaderBlock head = HeaderBlock.new()
    cdef const RuleRec *rule
    if rule_index >= snapshot.rules_n:
        raise IndexError(rule_index)
    rule = snapshot.rules + rule_index
    add_fields(head, headers)
    if run_response_filters(snapshot, rule.filters, rule.filters_n, head) < 0:
        raise MemoryError()
    return live_fields(head)


def time_routes(Snapshot snapshot not None, uint64_t port_id, list requests not None, int rounds):
    """Nanoseconds per route_request over (method, host, path) requests in turn; what perf and the tests compare."""
    cdef list heads = []
    cdef HeaderBlock head
    cdef Decision decision
    cdef uint32_t port = find_port(snapshot, <uint32_t> (port_id & NONE), <uint32_t> (port_id >> 32))
    cdef uint32_t found = 0
    for method, host, path in requests:
        head = HeaderBlock.new()
        if fill_head(head, method, host, path, None, ()):
            raise ValueError(f"no request: {method} {host} {path}")
        heads.append(head)
    start = perf_counter_ns()
    for _ in range(rounds):
        for head in heads:
            route_request(snapshot, port, head, &decision)
            found += decision.rule != NONE
    return (perf_counter_ns() - start) / (rounds * len(heads)), found
