# retry.pxd - level 4: what a rule says of trying again. Owns: nothing. Called by: exchange, once an attempt has come to nothing or has its head.

from gateway._core.snapshot cimport NONE, RuleRec, Snapshot
from gateway._core.types cimport uint16_t, uint32_t, uint64_t

cdef enum:
    MOST_DOUBLINGS = 5     # of the pause between attempts

# Attempts beyond the first that the rule asks for; 0: only what is safe by itself.
cdef inline uint32_t retries_of(Snapshot s, const RuleRec *rule) noexcept nogil:
    return 0 if rule.retry == NONE else s.retries[rule.retry].attempts

# Whether an answer with this status is to be tried again.
cdef inline bint is_retry_code(Snapshot s, const RuleRec *rule, uint16_t status) noexcept nogil:
    if rule.retry == NONE:
        return False
    return s.has_word(s.retries[rule.retry].codes, s.retries[rule.retry].codes_n, status)

# Milliseconds before the attempt that follows so many: doubled each time, and as much as half more by chance.
cdef inline uint64_t pause_after(Snapshot s, const RuleRec *rule, uint32_t attempts, uint64_t chance) noexcept nogil:
    cdef uint64_t pause
    if rule.retry == NONE or s.retries[rule.retry].backoff == 0:
        return 0
    pause = <uint64_t> s.retries[rule.retry].backoff << min(attempts - 1, <uint32_t> MOST_DOUBLINGS)
    return pause + chance % (pause // 2 + 1)
