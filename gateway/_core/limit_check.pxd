# limit_check.pxd - level 6: the rate limits of requests: decided here, or by the store while the request waits.
#
# Owns: the table, what is being asked and what waits for it. Called by: exchange (gather, decide, end), engine (answers), the wheel.
# Invariants: a request is charged to all of its limits or, when one refuses it, to none; it waits for the store no longer than its budget,
#   whatever Python does: a timer of the kernel's own keeps that, since the wheel's slots are wider than a budget; waiting requests are
#   bounded. What the store decided for a request that is gone is given back. A granted lease and a cached denial touch no Python object.

from cpython.ref cimport PyObject

from gateway._core.headers cimport HeaderBlock
from gateway._core.limit_key cimport KeyFacts, LimitKey
from gateway._core.limit_table cimport Clock, LimitTable, Outcome
from gateway._core.limit_top cimport TopKeys
from gateway._core.plane cimport Plane
from gateway._core.seam cimport Flow, Pollable
from gateway._core.snapshot cimport RateRec, Snapshot, TermsRec
from gateway._core.timers cimport Timer
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_TAKEN = 24         # limits of one request: of listener, rule and cluster, snapshot.MAX_RATES each
    MAX_WAITING = 8192     # requests of a worker that wait for the store; beyond, onFailure at once
    MAX_LEASES = 65536     # leases whose end is watched; what is left of others is lost

cdef enum How:             # what a limit took of a request
    HOW_NONE = 0           # nothing
    HOW_LOCAL = 1          # a place in the table's own count
    HOW_TOKEN = 2          # a token of the lease
    HOW_STORE = 3          # a place in the store's count
    HOW_FLIGHT = 4         # one in flight
    HOW_OPEN = 5           # nothing, since the store did not answer
    HOW_WAITS = 6          # the store is asked

cdef enum Kind:            # of an ask
    ASK_CHARGE = 0         # so many requests, all keys or none
    ASK_LEASE = 1          # so many tokens, or fewer
    ASK_GIVE_BACK = 2
    ASK_CHARGE_ALL = 3     # fitting or not

cdef enum Decided:
    CHECK_PASSED = 0
    CHECK_WAITS = 1        # Flow.on_limits says when there is an answer
    CHECK_REFUSED = 2

cdef struct Taken:         # one limit of one request
    const RateRec *rate
    const TermsRec *terms
    LimitKey key
    Outcome out
    uint32_t want          # tokens to ask for
    uint32_t ask           # id of the ask that it waits for
    uint32_t weight        # requests that this one stands for in the top keys; 0: it was not looked at
    uint8_t how
    uint8_t source         # counters.Source
    bint refused
    bint is_failure        # refused because the store did not answer

cdef struct Wait:          # node of the list of those that wait, the nearest deadline first
    Wait *prev
    Wait *next
    PyObject *owner        # borrowed: a LimitCheck
    uint64_t deadline_us   # 0: not on the list

cdef class Ask:
    cdef uint32_t id
    cdef uint32_t kind
    cdef uint32_t count
    cdef uint64_t budget_us
    cdef uint32_t keys_n
    cdef LimitKey keys[24]
    cdef uint32_t marks[24]    # of their terms
    cdef tuple rows        # of each key: what the store has to know
    cdef list waiters      # LimitChecks; None where one has gone; the list is None when it takes no more
    cdef bytes group       # in Limiter.joinable
    cdef bint is_sent      # somebody took it

cdef class LimitCheck:     # the limits of one exchange, which keeps it and uses it again
    cdef Limiter limiter
    cdef Flow flow         # between gather and end
    cdef Snapshot snapshot
    cdef Taken taken[24]
    cdef uint32_t n
    cdef uint32_t first    # of the step in hand
    cdef uint32_t refused  # index + 1 of the limit that refused; 0: none
    cdef uint32_t waits    # asks that are not answered
    cdef list asks         # and those; None: it waits for nothing
    cdef Wait wait
    cdef bint charges_after  # some limit's cost is told by the response

    @staticmethod
    cdef LimitCheck new(Limiter limiter)
    # Adds the limits that n words of the snapshot name, with the keys of this request.
    cdef void gather(self, Flow flow, Snapshot snapshot, HeaderBlock request, const KeyFacts *facts, uint32_t first, uint32_t n) noexcept
    # Charges what was gathered since the last time. A Decided.
    cdef int decide(self) noexcept
    # Adds the fields that speak of the limits.
    cdef int write_fields(self, HeaderBlock response) noexcept
    # Charges what the response says it took.
    cdef void charge_after(self, HeaderBlock response) noexcept
    # The status of the refusal.
    cdef int refusal(self) noexcept
    # The name of the limit that refused.
    cdef Span borrow_name(self) noexcept
    # The exchange is over, whoever broke it.
    cdef void end(self) noexcept
    cdef void meet(self, Taken *taken, Clock *clock) noexcept
    cdef void fall_back(self, Taken *taken, Clock *clock) noexcept
    cdef void settle(self, Taken *taken) noexcept
    cdef int conclude(self) noexcept
    cdef void undo(self) noexcept
    cdef void ask(self) noexcept
    cdef void leave(self) noexcept
    cdef void resume(self) noexcept
    cdef void on_granted(self, Ask ask, tuple rows) noexcept
    cdef void on_denied(self, Ask ask, tuple rows) noexcept
    cdef void on_failed(self, uint32_t ask) noexcept

cdef class Limiter(Pollable):
    cdef Plane plane
    cdef LimitTable table
    cdef TopKeys top
    cdef object asker      # called at the end of a turn in which asks came up; None: there is no store
    cdef uint32_t last_id
    cdef list fresh        # Asks that nobody took yet
    cdef dict out          # id -> Ask
    cdef dict joinable     # key or keys -> Ask that equal requests may join
    cdef object leases     # (end in us, low and high half of the key, row): a deque
    cdef Timer timer       # of the first of them
    cdef Wait waiting      # head of the list
    cdef uint32_t waiting_n
    cdef uint64_t armed_us # what the kernel's timer is set to; 0: not
    cdef bint is_calling   # the asker is on the stack

    @staticmethod
    cdef Limiter new(Plane plane)
    cdef int use(self, object table, uint32_t slot) except -1
    cdef void push(self, Ask ask) noexcept
    cdef void count(self, const Taken *taken, int decision) noexcept
    cdef void join_lease(self, LimitCheck check, Taken *taken) noexcept
    cdef void join_group(self, LimitCheck check, const uint32_t *indexes, uint32_t n) noexcept
    cdef void send_alone(self, LimitCheck check, const Taken *taken, uint32_t kind, uint32_t count, uint32_t cost) noexcept
    cdef void add_waiting(self, LimitCheck check, uint64_t deadline_us) noexcept
    cdef void drop_waiting(self, LimitCheck check) noexcept
    cdef int arm_kernel(self, uint64_t deadline_us) noexcept
    cdef list take(self)
    cdef int answer(self, uint32_t id, uint32_t granted, tuple rows) except -1
    cdef int answer_lease(self, Ask ask, uint32_t granted, tuple row) except -1
    cdef int answer_charge(self, Ask ask, uint32_t granted, tuple rows) except -1
    cdef int fail(self, uint32_t id) except -1
    cdef int watch_lease(self, Ask ask) except -1
    cdef int give_back(self, Ask ask, uint32_t i, uint32_t count) except -1
    cdef int again(self, LimitCheck check, Ask ask) except -1
    cdef void expire(self) noexcept
    cdef int set_asker(self, object asker) except -1
    cdef int close(self) except -1
