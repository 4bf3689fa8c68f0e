"""Sessions that stay with one endpoint; see session.pxd."""

from libc.stddef cimport size_t
from libc.string cimport memcpy
from libc.time cimport time

from gateway._core.affinity cimport find_value
from gateway._core.balance cimport hash64_of
from gateway._core.headers cimport HeaderBlock
from gateway._core.router cimport pick_backend
from gateway._core.snapshot cimport NONE, BackendRec, ClusterRec, RuleRec, SessionRec, Snapshot, id64
from gateway._core.tokens cimport T_SET_COOKIE, token_of
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    TOKEN = 32             # digits of cluster and endpoint
    BIRTH = 8              # of the second in which the session began
    LONGEST_NAME = 128
    LONGEST_TAIL = 64      # of a cookie: "; Path=/; HttpOnly; Max-Age=4294967295"

cdef const char *SECURE = b"; Secure"


cdef bint read_hex(const uint8_t *p, size_t n, uint64_t *value) noexcept nogil:
    cdef size_t i
    cdef uint8_t c
    value[0] = 0
    for i in range(n):
        c = p[i]
        if 48 <= c <= 57:
            c -= 48
        elif 97 <= c <= 102:
            c -= 87
        else:
            return False
        value[0] = value[0] << 4 | c
    return True


cdef void write_hex(uint8_t *o, size_t n, uint64_t value) noexcept nogil:
    while n:
        n -= 1
        o[n] = <uint8_t> b"0123456789abcdef"[value & 15]
        value >>= 4


cdef bint read_token(const SessionRec *session, Span token, uint64_t *cluster, uint64_t *endpoint) noexcept nogil:
    """False: it is none, or its session is over."""
    cdef uint64_t birth = 0
    cdef uint64_t now
    if token.n != <size_t> (TOKEN + BIRTH if session.lifetime else TOKEN):
        return False
    if not read_hex(token.p, 16, cluster) or not read_hex(token.p + 16, 16, endpoint):
        return False
    if session.lifetime == 0:
        return True
    if not read_hex(token.p + TOKEN, BIRTH, &birth):
        return False
    now = <uint64_t> time(NULL)
    # A minute ahead: the clocks of two replicas.
    return birth <= now + 60 and now < birth + session.lifetime


cdef const BackendRec *choose_backend(
    Snapshot snapshot, const RuleRec *rule, HeaderBlock request, uint64_t random, uint64_t *endpoint
) noexcept nogil:
    cdef const SessionRec *session
    cdef const ClusterRec *record
    cdef Span client
    cdef Span token
    cdef uint64_t cluster = 0
    cdef uint64_t place = 0
    cdef uint32_t i
    endpoint[0] = 0
    if rule.session != NONE:
        session = &snapshot.sessions[rule.session]
        client.p = NULL
        client.n = 0
        if find_value(session.kind, snapshot.borrow(session.name), request, client, &token) and (
                read_token(session, token, &cluster, &place)):
            for i in range(rule.backends, rule.backends + rule.backends_n):
                if snapshot.backends[i].cluster == NONE:
                    continue
                record = &snapshot.clusters[snapshot.backends[i].cluster]
                if id64(record.id_lo, record.id_hi) == cluster:
                    endpoint[0] = place
                    return &snapshot.backends[i]
    return pick_backend(snapshot, rule, random)


cdef int begin_session(Snapshot snapshot, const RuleRec *rule, HeaderBlock response, uint64_t cluster, Span endpoint, uint64_t kept,
                       bint secure) noexcept nogil:
    cdef const SessionRec *session = &snapshot.sessions[rule.session]
    cdef Span name = snapshot.borrow(session.name)
    cdef Span tail = snapshot.borrow(session.tail)
    cdef uint8_t text[LONGEST_NAME + 1 + TOKEN + BIRTH + LONGEST_TAIL + 8]
    cdef size_t n = 0
    cdef bint is_cookie = session.kind == 2
    cdef uint64_t place = hash64_of(endpoint.p, endpoint.n)
    if place == kept:
        return 0
    if is_cookie:
        memcpy(text, name.p, name.n)
        text[name.n] = 61
        n = name.n + 1
    write_hex(text + n, 16, cluster)
    write_hex(text + n + 16, 16, place)
    n += TOKEN
    if session.lifetime:
        write_hex(text + n, BIRTH, <uint64_t> time(NULL))
        n += BIRTH
    if not is_cookie:
        return response.set(token_of(name.p, name.n), name.p, name.n, text, n)
    memcpy(text + n, tail.p, tail.n)
    n += tail.n
    if secure:
        memcpy(text + n, SECURE, 8)
        n += 8
    return response.add(T_SET_COOKIE, <const uint8_t *> b"set-cookie", 10, text, n)
