"""The ledger of misbehaviour of one HTTP/2 connection; see h2_ledger.pxd."""

from libc.string cimport memset

from gateway._core.faults cimport F_FLOOD_CONTROL, F_FLOOD_OUTPUT
from gateway._core.types cimport uint32_t, uint64_t

cdef enum:
    UNIT = 1000                # of a level
    FIRST_ALLOWANCE = 200      # frames of control before any stream
    MOST_ALLOWANCE = 10000
    ALLOWED = 4                # frames of control for a stream, and for a frame of content: two updates, and as much again
    MOST_ANSWERS = 1000        # unread answers to frames of control

# By account: what is too much, and what leaks in a second; both in units, which is thousandths in a millisecond for the latter.
cdef uint32_t most[ACCOUNTS]
cdef uint32_t leak[ACCOUNTS]
most[:] = [1000, 200, 90, 100, 100]
leak[:] = [100, 10, 1, 10, 10]


cdef void ledger_start(Ledger *ledger, uint64_t now_ms) noexcept nogil:
    memset(ledger, 0, sizeof(Ledger))
    ledger.now_ms = now_ms
    ledger.allowance = FIRST_ALLOWANCE


cdef void let_leak(Ledger *ledger, uint64_t now_ms) noexcept nogil:
    cdef uint64_t passed = now_ms - ledger.now_ms if now_ms > ledger.now_ms else 0
    cdef int account
    ledger.now_ms = now_ms
    if passed > <uint64_t> 1 << 20:        # everything has leaked long ago
        memset(ledger.levels, 0, sizeof(ledger.levels))
        return
    for account in range(<int> ACCOUNTS):
        if ledger.levels[account] <= passed * leak[account]:
            ledger.levels[account] = 0
        else:
            ledger.levels[account] -= <uint32_t> passed * leak[account]


cdef int ledger_add(Ledger *ledger, uint64_t now_ms, int account, uint32_t amount, int fault) noexcept nogil:
    if now_ms != ledger.now_ms:
        let_leak(ledger, now_ms)
    ledger.levels[account] += amount * UNIT
    return -fault if ledger.levels[account] > most[account] * UNIT else 0


cdef void ledger_answered(Ledger *ledger) noexcept nogil:
    ledger.levels[<int> ACCOUNT_RESETS] -= min(ledger.levels[<int> ACCOUNT_RESETS], <uint32_t> UNIT)
    ledger.levels[<int> ACCOUNT_FAULTS] -= min(ledger.levels[<int> ACCOUNT_FAULTS], <uint32_t> UNIT)


cdef void ledger_allow(Ledger *ledger) noexcept nogil:
    if ledger.allowance < MOST_ALLOWANCE:
        ledger.allowance += ALLOWED


cdef int ledger_control(Ledger *ledger, uint64_t now_ms) noexcept nogil:
    if ledger.allowance > 0:
        ledger.allowance -= 1
        return 0
    return ledger_add(ledger, now_ms, ACCOUNT_POINTS, WEIGHT_CONTROL, F_FLOOD_CONTROL)


cdef int ledger_answer(Ledger *ledger) noexcept nogil:
    ledger.answers += 1
    return -F_FLOOD_OUTPUT if ledger.answers > MOST_ANSWERS else 0
