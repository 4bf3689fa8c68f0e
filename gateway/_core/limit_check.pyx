"""The rate limits of requests: decided here, or by the store while the request waits; see limit_check.pxd.

Read from top to bottom: what one request takes of its limits, what is asked for it, and what the answers come to.
"""

from collections import deque

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject

from gateway._core.counters cimport (
    DECISION_ALLOWED, DECISION_DENIED, DECISION_SHADOW, S_BUGS, S_LIMIT_EVICTIONS, S_LIMIT_FALLBACKS, S_LIMIT_WAITS, S_LIMIT_WAITING,
    SOURCE_DENY_CACHE, SOURCE_FALLBACK, SOURCE_LEASE, SOURCE_LOCAL, SOURCE_NONE, SOURCE_STORE, SOURCES)
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.limit_answer cimport MOST_FACTS, LimitFact, add_limit_fields
from gateway._core.limit_key cimport KeyFacts, LimitKey, limit_key_of
from gateway._core.limit_table cimport LEASE_DENIED, LEASE_MS, LEASE_TAKEN, Clock, LimitTable, Outcome, mark_of
from gateway._core.limit_top cimport TopKeys
from gateway._core.plane cimport Plane
from gateway._core.seam cimport Flow
from gateway._core.snapshot cimport (
    FAIL_CLOSED, FAIL_OPEN, IN_FLIGHT, MODE_LEASED, MODE_LOCAL, NONE, OverrideRec, RateRec, Snapshot, TermsRec, id64)
from gateway._core.sys cimport (
    CLOCK_MONOTONIC, TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME, close, itimerspec, ssize_t, sys_read, timerfd_create, timerfd_settime)
from gateway._core.timers cimport Timer
from gateway._core.types cimport Span, int64_t, uint8_t, uint32_t, uint64_t

from gateway._core import limit_table

cdef enum:
    CLOSED_RETRY_MS = 1000 # after a refusal because the store did not answer
    LARGEST_COST = 1000000000
    OWN_BUCKETS = 2048     # of a table that no other worker sees


# ---- what one request takes of its limits --------------------------------------------------------------------------------


cdef const OverrideRec *find_override(Snapshot snapshot, const RateRec *rate, const LimitKey *key) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = rate.overrides_n
    cdef uint32_t middle
    cdef const OverrideRec *record
    while low < high:
        middle = (low + high) // 2
        record = &snapshot.overrides[rate.overrides + middle]
        if id64(record.lo_lo, record.lo_hi) < key.lo:
            low = middle + 1
        else:
            high = middle
    if low == rate.overrides_n:
        return NULL
    record = &snapshot.overrides[rate.overrides + low]
    if id64(record.lo_lo, record.lo_hi) == key.lo and id64(record.hi_lo, record.hi_hi) == key.hi:
        return record
    return NULL


cdef class LimitCheck:
    def __init__(self):
        raise TypeError("use LimitCheck.new")

    @staticmethod
    cdef LimitCheck new(Limiter limiter):
        cdef LimitCheck check = LimitCheck.__new__(LimitCheck)
        check.limiter = limiter
        check.wait.owner = <PyObject *> check
        return check

    cdef void gather(self, Flow flow, Snapshot snapshot, HeaderBlock request, const KeyFacts *facts, uint32_t first, uint32_t n) noexcept:
        cdef uint32_t i
        cdef uint32_t j
        cdef const RateRec *rate
        cdef const OverrideRec *override
        cdef Taken *taken
        self.flow = flow
        self.snapshot = snapshot
        for i in range(first, first + n):
            rate = &snapshot.rates[snapshot.words[i]]
            for j in range(self.n):
                if self.taken[j].rate == rate:
                    break
            else:
                if self.n == MAX_TAKEN:
                    return
                taken = &self.taken[self.n]
                if not limit_key_of(snapshot, rate, request, facts, &taken.key):
                    continue
                taken.terms = &snapshot.terms[rate.terms]
                if rate.overrides_n:
                    override = find_override(snapshot, rate, &taken.key)
                    if override != NULL:
                        if override.terms == NONE:
                            continue
                        taken.terms = &snapshot.terms[override.terms]
                taken.rate = rate
                taken.how = HOW_NONE
                taken.refused = taken.is_failure = False
                taken.ask = taken.want = taken.weight = 0
                self.limiter.top.until -= 1
                if self.limiter.top.until == 0:
                    taken.weight = self.limiter.top.sample(snapshot, rate, request, facts, &taken.key, self.limiter.plane.poller.now_ms)
                if rate.cost_header.n:
                    self.charges_after = True
                self.n += 1

    cdef int decide(self) noexcept:
        cdef Clock clock
        cdef Taken *taken
        cdef uint32_t i
        cdef bint waits = False
        clock.us = self.limiter.plane.poller.now_us
        clock.wall_us = 0
        for i in range(self.first, self.n):
            taken = &self.taken[i]
            self.meet(taken, &clock)
            if taken.how == HOW_WAITS and self.limiter.waiting_n >= MAX_WAITING:
                self.limiter.table.lease_unasked(&taken.key, clock.us)
                self.fall_back(taken, &clock)
            if taken.how == HOW_WAITS:
                waits = True
            else:
                self.settle(taken)
            if self.refused:
                return self.conclude()
        if waits:
            self.ask()
            return CHECK_WAITS
        return self.conclude()

    cdef void meet(self, Taken *taken, Clock *clock) noexcept:
        """What can be told without the store; HOW_WAITS when that is nothing."""
        cdef LimitTable table = self.limiter.table
        cdef const RateRec *rate = taken.rate
        cdef uint32_t want = 0
        cdef uint32_t back = 0
        cdef int leased
        taken.source = SOURCE_LOCAL
        if rate.algorithm == IN_FLIGHT:
            table.enter(&taken.key, taken.terms, clock.us, &taken.out)
            taken.how = HOW_FLIGHT if taken.out.granted else HOW_NONE
        elif rate.mode == MODE_LOCAL or self.limiter.asker is None:
            table.take(&taken.key, rate.algorithm, taken.terms, rate.cost, clock, &taken.out)
            taken.how = HOW_LOCAL if taken.out.granted else HOW_NONE
        elif rate.mode == MODE_LEASED:
            leased = table.lease_take(&taken.key, taken.terms, rate.cost, clock, &taken.out, &want, &back)
            if back:
                self.limiter.send_alone(self, taken, ASK_GIVE_BACK, back, rate.cost)
            if leased == LEASE_TAKEN:
                taken.how = HOW_TOKEN
                taken.source = SOURCE_LEASE
                if want:
                    self.limiter.send_alone(self, taken, ASK_LEASE, want, rate.cost)
            elif leased == LEASE_DENIED:
                taken.how = HOW_NONE
                taken.source = SOURCE_DENY_CACHE
            else:
                taken.how = HOW_WAITS
                taken.want = want
        else:
            taken.out.retry_ms = table.denied_ms(&taken.key, taken.terms, clock.us)
            taken.out.granted = False
            taken.out.remaining = 0
            taken.out.reset_ms = taken.out.retry_ms
            taken.source = SOURCE_DENY_CACHE
            taken.how = HOW_NONE if taken.out.retry_ms else HOW_WAITS
        taken.refused = taken.how == HOW_NONE

    cdef void fall_back(self, Taken *taken, Clock *clock) noexcept:
        """The store did not answer in time, or cannot be asked."""
        cdef const RateRec *rate = taken.rate
        self.limiter.plane.counters.bump(S_LIMIT_FALLBACKS, 1)
        taken.source = SOURCE_FALLBACK
        taken.out.remaining = taken.out.retry_ms = taken.out.reset_ms = 0
        if rate.on_failure == FAIL_OPEN:
            taken.how = HOW_OPEN
        elif rate.on_failure == FAIL_CLOSED:
            taken.how = HOW_NONE
            taken.is_failure = True
            taken.out.retry_ms = CLOSED_RETRY_MS
        else:
            self.limiter.table.take(&taken.key, rate.algorithm, taken.terms, rate.cost, clock, &taken.out)
            taken.how = HOW_LOCAL if taken.out.granted else HOW_NONE
        taken.refused = taken.how == HOW_NONE

    cdef void settle(self, Taken *taken) noexcept:
        """One limit is decided."""
        if not taken.refused:
            return
        if taken.rate.shadow:
            taken.refused = False
            self.limiter.count(taken, DECISION_SHADOW)
            # not counted once more as allowed
            taken.source = SOURCE_NONE
        elif self.refused == 0:
            self.refused = 1 + <uint32_t> (taken - &self.taken[0])

    cdef int conclude(self) noexcept:
        """All limits of the step are decided, or one has refused."""
        cdef uint32_t i
        if self.refused:
            self.limiter.count(&self.taken[self.refused - 1], DECISION_DENIED)
            self.undo()
            return CHECK_REFUSED
        for i in range(self.first, self.n):
            if self.taken[i].source != SOURCE_NONE:
                self.limiter.count(&self.taken[i], DECISION_ALLOWED)
        self.first = self.n
        return CHECK_PASSED

    cdef void undo(self) noexcept:
        """Gives back everything that was charged."""
        cdef LimitTable table = self.limiter.table
        cdef Taken *taken
        cdef Clock clock
        cdef uint32_t i
        clock.us = self.limiter.plane.poller.now_us
        clock.wall_us = 0
        for i in range(self.n):
            taken = &self.taken[i]
            if taken.how == HOW_LOCAL:
                table.adjust(&taken.key, taken.rate.algorithm, taken.terms, -<int> taken.rate.cost, &clock)
            elif taken.how == HOW_FLIGHT:
                table.leave(&taken.key, clock.us)
            elif taken.how == HOW_TOKEN or taken.how == HOW_STORE and taken.rate.mode == MODE_LEASED:
                table.lease_return(&taken.key, clock.us)
            elif taken.how == HOW_STORE:
                self.limiter.send_alone(self, taken, ASK_GIVE_BACK, 1, taken.rate.cost)
            taken.how = HOW_NONE

    cdef void end(self) noexcept:
        cdef uint32_t i
        cdef uint64_t now_us
        if self.n == 0:
            return
        if self.asks is not None:
            # the client has gone before it was decided
            self.leave()
            self.undo()
        now_us = self.limiter.plane.poller.now_us
        for i in range(self.n):
            if self.taken[i].how == HOW_FLIGHT:
                self.limiter.table.leave(&self.taken[i].key, now_us)
        self.n = self.first = self.refused = 0
        self.charges_after = False
        self.flow = None
        self.snapshot = None

    # ---- what answers say --------------------------------------------------------------------------------------------------

    cdef int write_fields(self, HeaderBlock response) noexcept:
        cdef LimitFact facts[MOST_FACTS]
        cdef const Taken *taken
        cdef uint32_t i
        cdef uint32_t n = 0
        cdef uint32_t retry_ms = 0
        for i in range(self.n):
            taken = &self.taken[i]
            if self.refused == i + 1:
                retry_ms = taken.out.retry_ms if taken.out.retry_ms else 1
            elif self.refused or taken.how == HOW_OPEN:
                # what was not decided has nothing to tell
                continue
            if taken.is_failure:
                continue
            facts[n].name = self.snapshot.borrow(taken.rate.name)
            facts[n].style = taken.rate.style
            facts[n].requests = taken.terms.requests
            facts[n].seconds = taken.terms.seconds
            facts[n].remaining = taken.out.remaining
            # never earlier than Retry-After
            facts[n].reset_ms = taken.out.reset_ms
            if self.refused and taken.out.remaining == 0 and taken.out.retry_ms > facts[n].reset_ms:
                facts[n].reset_ms = taken.out.retry_ms
            facts[n].in_flight = taken.rate.algorithm == IN_FLIGHT
            n += 1
        return add_limit_fields(response, facts, n, retry_ms)

    cdef int refusal(self) noexcept:
        return 503 if self.taken[self.refused - 1].is_failure else 429

    cdef Span borrow_name(self) noexcept:
        return self.snapshot.borrow(self.taken[self.refused - 1].rate.name)

    cdef void charge_after(self, HeaderBlock response) noexcept:
        cdef Taken *taken
        cdef Clock clock
        cdef Span name
        cdef Field *field
        cdef int64_t cost
        cdef uint32_t i
        clock.us = self.limiter.plane.poller.now_us
        clock.wall_us = 0
        for i in range(self.n):
            taken = &self.taken[i]
            if taken.rate.cost_header.n == 0 or taken.how == HOW_NONE or taken.how == HOW_OPEN:
                continue
            name = self.snapshot.borrow(taken.rate.cost_header)
            field = response.find_name(name.p, name.n)
            if field == NULL:
                continue
            cost = number_of(response.borrow_value(field))
            if cost < 0:
                continue
            cost -= taken.rate.cost
            if taken.how == HOW_LOCAL:
                self.limiter.table.adjust(&taken.key, taken.rate.algorithm, taken.terms, <int> cost, &clock)
            elif cost > 0:
                self.limiter.send_alone(self, taken, ASK_CHARGE_ALL, <uint32_t> cost, 1)
            elif cost < 0:
                self.limiter.send_alone(self, taken, ASK_GIVE_BACK, <uint32_t> -cost, 1)

    # ---- waiting for the store ---------------------------------------------------------------------------------------------

    cdef void ask(self) noexcept:
        cdef uint32_t strict[MAX_TAKEN]
        cdef uint32_t strict_n = 0
        cdef uint32_t timeout = NONE
        cdef Taken *taken
        cdef uint32_t i
        self.asks = []
        self.waits = 0
        for i in range(self.first, self.n):
            taken = &self.taken[i]
            if taken.how != HOW_WAITS:
                continue
            if taken.rate.timeout < timeout:
                timeout = taken.rate.timeout
            if taken.rate.mode == MODE_LEASED:
                self.limiter.join_lease(self, taken)
            elif taken.rate.shadow:
                # by itself: what only looks on must not keep the others from being charged
                self.limiter.join_group(self, &i, 1)
            else:
                strict[strict_n] = i
                strict_n += 1
        if strict_n:
            self.limiter.join_group(self, strict, strict_n)
        self.limiter.plane.counters.bump(S_LIMIT_WAITS, 1)
        self.limiter.add_waiting(self, self.limiter.plane.poller.now_us + <uint64_t> timeout * 1000)

    cdef void leave(self) noexcept:
        """Waits no more. What is asked is answered all the same."""
        cdef Ask ask
        cdef Py_ssize_t i
        for ask in self.asks:
            if ask.waiters is not None:
                for i in range(len(ask.waiters)):
                    if ask.waiters[i] is self:
                        ask.waiters[i] = None
        self.asks = None
        self.waits = 0
        self.limiter.drop_waiting(self)

    cdef void resume(self) noexcept:
        """As much is answered as is needed."""
        cdef Flow flow = self.flow
        if self.refused == 0 and self.waits:
            return
        self.leave()
        self.conclude()
        flow.on_limits()

    cdef void on_granted(self, Ask ask, tuple rows) noexcept:
        cdef Taken *taken
        cdef uint32_t i
        for i in range(self.first, self.n):
            taken = &self.taken[i]
            if taken.ask == ask.id and taken.how == HOW_WAITS:
                taken.how = HOW_STORE
                taken.source = SOURCE_STORE
                taken.refused = False
                read_row(ask, rows, taken)
        self.waits -= 1
        self.resume()

    cdef void on_denied(self, Ask ask, tuple rows) noexcept:
        """One of the ask's keys refused; none of them is charged."""
        cdef Taken *taken
        cdef Taken *refuses = NULL
        cdef uint32_t i
        for i in range(self.first, self.n):
            taken = &self.taken[i]
            if taken.ask == ask.id and taken.how == HOW_WAITS:
                taken.how = HOW_NONE
                taken.source = SOURCE_STORE
                read_row(ask, rows, taken)
                if refuses == NULL or taken.out.retry_ms > refuses.out.retry_ms:
                    refuses = taken
        if refuses != NULL:
            refuses.refused = True
            self.settle(refuses)
        self.waits -= 1
        self.resume()

    cdef void on_failed(self, uint32_t ask) noexcept:
        """No answer came to this ask; to any of them when it is 0."""
        cdef Taken *taken
        cdef Clock clock
        cdef uint32_t i
        clock.us = self.limiter.plane.poller.now_us
        clock.wall_us = 0
        for i in range(self.first, self.n):
            taken = &self.taken[i]
            if taken.how == HOW_WAITS and (ask == 0 or taken.ask == ask):
                self.fall_back(taken, &clock)
                self.settle(taken)
        self.waits = self.waits - 1 if ask and self.waits else 0
        self.resume()


cdef bint is_waiting(LimitCheck check, Ask ask) noexcept:
    """Whether it still waits for this ask: a check that was left is used again by another request."""
    return check is not None and check.asks is not None and ask in check.asks


cdef void read_row(Ask ask, tuple rows, Taken *taken) noexcept:
    """What the store said of the limit's key: remaining, retry_ms, reset_ms."""
    cdef uint32_t i
    cdef tuple row
    taken.out.remaining = taken.out.retry_ms = taken.out.reset_ms = 0
    for i in range(ask.keys_n):
        if ask.keys[i].lo == taken.key.lo and ask.keys[i].hi == taken.key.hi:
            row = rows[i]
            taken.out.remaining = row[0]
            taken.out.retry_ms = row[1]
            taken.out.reset_ms = row[2]
            return


cdef int64_t number_of(Span text) noexcept nogil:
    """A decimal number, cut to LARGEST_COST; -1 for anything else."""
    cdef int64_t number = 0
    cdef size_t i
    if text.n == 0 or text.n > 20:
        return -1
    for i in range(text.n):
        if not 48 <= text.p[i] <= 57:
            return -1
        if number < LARGEST_COST:
            number = number * 10 + text.p[i] - 48
    return number if number < LARGEST_COST else LARGEST_COST


# ---- what is asked, and what comes of it -----------------------------------------------------------------------------------


cdef tuple row_of(Snapshot snapshot, const Taken *taken, uint32_t cost):
    """(tag, key, algorithm, requests, period in us, capacity, cost), as the store's script takes them."""
    cdef const TermsRec *terms = taken.terms
    return (snapshot.bytes_of(taken.rate.tag), PyBytes_FromStringAndSize(<const char *> &taken.key, sizeof(LimitKey)),
            taken.rate.algorithm, terms.requests, id64(terms.period_lo, terms.period_hi), terms.capacity, cost)


cdef class Limiter(Pollable):
    def __init__(self):
        raise TypeError("use Limiter.new")

    @staticmethod
    cdef Limiter new(Plane plane):
        cdef Limiter limiter = Limiter.__new__(Limiter)
        limiter.plane = plane
        limiter.top = TopKeys()
        limiter.fresh = []
        limiter.out = {}
        limiter.joinable = {}
        limiter.leases = deque()
        limiter.timer.owner = <PyObject *> limiter
        limiter.waiting.prev = limiter.waiting.next = &limiter.waiting
        return limiter

    cdef int use(self, object table, uint32_t slot) except -1:
        """Counts in this table from now on; None: in one of its own."""
        if table is None:
            table = bytearray(limit_table.table_size(OWN_BUCKETS))
        self.table = LimitTable.over(table, slot, &self.plane.counters.scalars[<int> S_LIMIT_EVICTIONS])
        return 0

    cdef void count(self, const Taken *taken, int decision) noexcept:
        self.plane.counters.limit(id64(taken.rate.id_lo, taken.rate.id_hi)).decisions[decision * SOURCES + taken.source] += 1
        if taken.weight and decision != DECISION_ALLOWED:
            self.top.refuse(id64(taken.rate.id_lo, taken.rate.id_hi), &taken.key, taken.weight)

    # ---- asking

    cdef void push(self, Ask ask) noexcept:
        self.last_id = self.last_id + 1 if self.last_id < NONE else 1
        ask.id = self.last_id
        self.fresh.append(ask)
        self.plane.poller.push_flush(self)

    cdef void on_flush(self) noexcept:
        """The end of a turn in which asks came up: now they go out together."""
        if not self.fresh or self.asker is None:
            return
        self.is_calling = True
        try:
            self.asker()
        except Exception:
            self.plane.counters.bump(S_BUGS, 1)
        self.is_calling = False

    cdef void join_lease(self, LimitCheck check, Taken *taken) noexcept:
        cdef bytes group = PyBytes_FromStringAndSize(<const char *> &taken.key, sizeof(LimitKey))
        cdef Ask ask = self.joinable.get(group)
        if ask is None:
            ask = Ask.__new__(Ask)
            ask.kind = ASK_LEASE
            ask.count = taken.want if taken.want else 1
            ask.budget_us = <uint64_t> taken.rate.timeout * 1000
            ask.keys_n = 1
            ask.keys[0] = taken.key
            ask.marks[0] = mark_of(taken.terms)
            ask.rows = (row_of(check.snapshot, taken, taken.rate.cost),)
            ask.waiters = []
            ask.group = group
            self.joinable[group] = ask
            self.push(ask)
        elif not ask.is_sent and <uint32_t> len(ask.waiters) >= ask.count:
            ask.count += 1
        ask.waiters.append(check)
        taken.ask = ask.id
        check.asks.append(ask)
        check.waits += 1

    cdef void join_group(self, LimitCheck check, const uint32_t *indexes, uint32_t n) noexcept:
        """Strict limits of one request: all or none. Equal ones of one turn are one ask."""
        cdef LimitKey keys[MAX_TAKEN]
        cdef Taken *taken
        cdef bytes group
        cdef Ask ask
        cdef uint32_t i
        cdef list rows
        for i in range(n):
            keys[i] = check.taken[indexes[i]].key
        # another length than a lease's, whose keys are the same
        group = PyBytes_FromStringAndSize(<const char *> keys, n * sizeof(LimitKey)) + b"s"
        ask = self.joinable.get(group)
        if ask is None:
            ask = Ask.__new__(Ask)
            ask.kind = ASK_CHARGE
            ask.keys_n = n
            ask.budget_us = <uint64_t> -1
            rows = []
            for i in range(n):
                taken = &check.taken[indexes[i]]
                ask.keys[i] = taken.key
                ask.marks[i] = mark_of(taken.terms)
                rows.append(row_of(check.snapshot, taken, taken.rate.cost))
                if <uint64_t> taken.rate.timeout * 1000 < ask.budget_us:
                    ask.budget_us = <uint64_t> taken.rate.timeout * 1000
            ask.rows = tuple(rows)
            ask.waiters = []
            ask.group = group
            self.joinable[group] = ask
            self.push(ask)
        ask.count += 1
        ask.waiters.append(check)
        for i in range(n):
            check.taken[indexes[i]].ask = ask.id
        check.asks.append(ask)
        check.waits += 1

    cdef void send_alone(self, LimitCheck check, const Taken *taken, uint32_t kind, uint32_t count, uint32_t cost) noexcept:
        """An ask that nobody waits for."""
        cdef Ask ask = Ask.__new__(Ask)
        ask.kind = kind
        ask.count = count
        ask.budget_us = <uint64_t> taken.rate.timeout * 1000
        ask.keys_n = 1
        ask.keys[0] = taken.key
        ask.marks[0] = mark_of(taken.terms)
        ask.rows = (row_of(check.snapshot, taken, cost),)
        ask.waiters = []
        if kind == ASK_LEASE:
            ask.group = PyBytes_FromStringAndSize(<const char *> &taken.key, sizeof(LimitKey))
            self.joinable.setdefault(ask.group, ask)
        self.push(ask)

    cdef list take(self):
        cdef Ask ask
        cdef list found = []
        for ask in self.fresh:
            self.out[ask.id] = ask
            ask.is_sent = True
            found.append((ask.id, ask.count, ask.kind, ask.rows, ask.budget_us))
            if ask.kind == ASK_CHARGE:
                # How many it asks for is said: who comes later asks anew. A lease may serve who comes later.
                self.joinable.pop(ask.group, None)
        self.fresh = []
        return found

    # ---- answers

    cdef int answer(self, uint32_t id, uint32_t granted, tuple rows) except -1:
        cdef Ask ask = self.out.pop(id, None)
        if ask is None:
            return 0
        if ask.kind == ASK_LEASE:
            self.answer_lease(ask, granted, rows[0])
        elif ask.kind == ASK_CHARGE:
            self.answer_charge(ask, granted, rows)
        return 0

    cdef int answer_lease(self, Ask ask, uint32_t granted, tuple row) except -1:
        cdef list waiters = ask.waiters
        cdef LimitCheck check
        cdef uint32_t served = 0
        cdef uint64_t now_us = self.plane.poller.now_us
        ask.waiters = None
        if self.joinable.get(ask.group) is ask:
            del self.joinable[ask.group]
        for check in waiters:
            if served < granted and is_waiting(check, ask):
                served += 1
        self.table.lease_grant(&ask.keys[0], granted, served, row[0], row[1], ask.marks[0], now_us)
        if granted > served:
            self.watch_lease(ask)
        for check in waiters:
            if not is_waiting(check, ask):
                continue
            if served:
                served -= 1
                check.on_granted(ask, (row,))
            elif granted >= ask.count:
                # More came than were asked for.
                self.again(check, ask)
            else:
                check.on_denied(ask, (row,))
        # of those that went while others went on
        for _ in range(served):
            self.table.lease_return(&ask.keys[0], now_us)
        return 0

    cdef int again(self, LimitCheck check, Ask ask) except -1:
        cdef uint32_t i
        check.waits -= 1
        check.asks.remove(ask)
        for i in range(check.first, check.n):
            if check.taken[i].ask == ask.id and check.taken[i].how == HOW_WAITS:
                check.taken[i].want = 1
                self.join_lease(check, &check.taken[i])
        return 0

    cdef int answer_charge(self, Ask ask, uint32_t granted, tuple rows) except -1:
        cdef list waiters = ask.waiters
        cdef LimitCheck check
        cdef uint64_t now_us = self.plane.poller.now_us
        cdef uint32_t i
        cdef uint32_t left = granted
        ask.waiters = None
        for i in range(ask.keys_n):
            self.table.lease_grant(&ask.keys[i], 0, 0, rows[i][0], rows[i][1], ask.marks[i], now_us)
        for check in waiters:
            if not is_waiting(check, ask):
                continue
            if left:
                left -= 1
                check.on_granted(ask, rows)
            else:
                check.on_denied(ask, rows)
        if left:
            for i in range(ask.keys_n):
                self.give_back(ask, i, left)
        return 0

    cdef int give_back(self, Ask ask, uint32_t i, uint32_t count) except -1:
        cdef Ask back = Ask.__new__(Ask)
        back.kind = ASK_GIVE_BACK
        back.count = count
        back.budget_us = ask.budget_us
        back.keys_n = 1
        back.keys[0] = ask.keys[i]
        back.rows = (ask.rows[i],)
        back.waiters = []
        self.push(back)
        return 0

    cdef int fail(self, uint32_t id) except -1:
        cdef Ask ask = self.out.pop(id, None)
        cdef LimitCheck check
        cdef list waiters
        if ask is None:
            return 0
        waiters = ask.waiters
        ask.waiters = None
        if ask.kind == ASK_LEASE:
            self.table.lease_unasked(&ask.keys[0], self.plane.poller.now_us)
            if self.joinable.get(ask.group) is ask:
                del self.joinable[ask.group]
        for check in waiters:
            if is_waiting(check, ask):
                check.on_failed(ask.id)
        return 0

    # ---- leases that end with tokens left

    cdef int watch_lease(self, Ask ask) except -1:
        cdef uint64_t end = self.plane.poller.now_us + LEASE_MS * 1000
        if len(self.leases) >= MAX_LEASES:
            return 0
        ask.waiters = None
        self.leases.append((end, ask))
        self.plane.wheel.arm(&self.timer, end // 1000 + 1)
        return 0

    cdef void on_timer(self, Timer *timer) noexcept:
        cdef uint64_t now_us = self.plane.poller.now_us
        cdef uint32_t left
        cdef Ask ask
        if self.fd < 0:
            self.expire()
        while self.leases and self.leases[0][0] <= now_us:
            ask = self.leases.popleft()[1]
            left = self.table.lease_over(&ask.keys[0], now_us)
            if left:
                self.give_back(ask, 0, left)
        if self.leases:
            self.plane.wheel.arm(timer, <uint64_t> self.leases[0][0] // 1000 + 1)

    # ---- budgets

    cdef void add_waiting(self, LimitCheck check, uint64_t deadline_us) noexcept:
        cdef Wait *after = self.waiting.prev
        cdef Wait *wait = &check.wait
        while after != &self.waiting and after.deadline_us > deadline_us:
            after = after.prev
        wait.deadline_us = deadline_us
        wait.prev = after
        wait.next = after.next
        after.next.prev = wait
        after.next = wait
        self.waiting_n += 1
        self.plane.counters.bump(S_LIMIT_WAITING, 1)
        if self.armed_us == 0 or deadline_us < self.armed_us:
            self.arm_kernel(deadline_us)

    cdef void drop_waiting(self, LimitCheck check) noexcept:
        cdef Wait *wait = &check.wait
        if wait.deadline_us:
            wait.prev.next = wait.next
            wait.next.prev = wait.prev
            wait.deadline_us = 0
            self.waiting_n -= 1
            self.plane.counters.bump(S_LIMIT_WAITING, <uint64_t> -1)

    cdef int arm_kernel(self, uint64_t deadline_us) noexcept:
        cdef itimerspec when
        if self.fd < 0:
            self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
            if self.fd < 0 or self.plane.poller.add(self, False) < 0:
                # No descriptor left: the wheel fires a little late.
                if self.fd >= 0:
                    close(self.fd)
                    self.fd = -1
                self.plane.wheel.arm(&self.timer, deadline_us // 1000 + 1)
                return -1
        when.it_interval.tv_sec = when.it_interval.tv_nsec = 0
        when.it_value.tv_sec = <long> (deadline_us // 1000000)
        when.it_value.tv_nsec = <long> (deadline_us % 1000000 * 1000)
        self.armed_us = deadline_us
        return timerfd_settime(self.fd, TFD_TIMER_ABSTIME, &when, NULL)

    cdef void on_io(self, uint32_t events) noexcept:
        """Budgets are spent."""
        cdef uint64_t ticks = 0
        cdef ssize_t got = sys_read(self.fd, &ticks, 8)
        if got > 0:
            self.expire()

    cdef void expire(self) noexcept:
        cdef uint64_t now_us = self.plane.poller.now_us
        cdef LimitCheck check
        self.armed_us = 0
        while self.waiting.next != &self.waiting and self.waiting.next.deadline_us <= now_us:
            check = <LimitCheck> self.waiting.next.owner
            check.on_failed(0)
        if self.waiting.next != &self.waiting:
            self.arm_kernel(self.waiting.next.deadline_us)

    cdef int set_asker(self, object asker) except -1:
        cdef Ask ask
        self.asker = asker
        if asker is None:
            # Nobody will answer any more.
            self.take()
            for ask in list(self.out.values()):
                self.fail(ask.id)
        return 0

    cdef int close(self) except -1:
        self.asker = None
        self.plane.wheel.disarm(&self.timer)
        if self.fd >= 0:
            self.plane.poller.remove(self, False)
            close(self.fd)
            self.fd = -1
        self.fresh.clear()
        self.out.clear()
        self.joinable.clear()
        self.leases.clear()
        return 0
