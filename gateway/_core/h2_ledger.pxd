# h2_ledger.pxd - level 3: the ledger of misbehaviour of one HTTP/2 connection: frames that are allowed one by one, and not in such numbers.
#
# Owns: nothing; a Ledger lies in its session. Called by: h2_send, h2_session, in either role: an origin can flood as well as a client.
# Each account is a bucket that leaks: what is put in leaves it at a rate, and a bucket that overflows is a fault, which ends the
# connection with ENHANCE_YOUR_CALM. A request that is answered takes one out of the resets and one out of the faults, so that a long
# life with a share of cancelled requests is no flood; a reset that comes after the answer takes that back.
#
#   account    most   leaks per second   what is put in
#   POINTS     1000        100           glitches of every kind, by weight
#   RESETS      200         10           requests that the peer reset, before they were answered or just after (D1)
#   FAULTS       90          1           streams that we had to reset or refuse for what they said (D2, D4, D8)
#   PINGS       100         10           PING (D6)
#   SETTINGS    100         10           SETTINGS and their acknowledgements (D6)

from gateway._core.types cimport int32_t, uint32_t, uint64_t

cdef enum Account:
    ACCOUNT_POINTS = 0
    ACCOUNT_RESETS = 1
    ACCOUNT_FAULTS = 2
    ACCOUNT_PINGS = 3
    ACCOUNT_SETTINGS = 4
    ACCOUNTS = 5

cdef enum Weight:          # points
    WEIGHT_LATE = 2        # a frame on a stream that is gone: often a race
    WEIGHT_TABLE = 5       # a change of the size of the table of HPACK
    WEIGHT_REFUSED = 5     # a stream beyond the number that is allowed
    WEIGHT_EMPTY = 10      # DATA without content that does not end a stream
    WEIGHT_PADDING = 1     # DATA that is padding for its most part
    WEIGHT_CONTROL = 10    # a WINDOW_UPDATE, PRIORITY or unknown frame that no content explains

cdef struct Ledger:
    uint64_t now_ms        # when the buckets last leaked
    uint32_t levels[ACCOUNTS]  # in thousandths
    int32_t allowance      # frames of control that are explained by streams and content
    uint32_t answers       # frames that we had to send because of the peer's, since the output was last empty

cdef void ledger_start(Ledger *ledger, uint64_t now_ms) noexcept nogil
# Puts `amount` in. 0, or the negated fault when the bucket overflows.
cdef int ledger_add(Ledger *ledger, uint64_t now_ms, int account, uint32_t amount, int fault) noexcept nogil
# A request was answered to its end.
cdef void ledger_answered(Ledger *ledger) noexcept nogil
# A stream was opened, or content sent: some frames of control come with it.
cdef void ledger_allow(Ledger *ledger) noexcept nogil
# A frame of control. 0 or -F_FLOOD_CONTROL.
cdef int ledger_control(Ledger *ledger, uint64_t now_ms) noexcept nogil
# A frame was queued in answer to one. 0 or -F_FLOOD_OUTPUT.
cdef int ledger_answer(Ledger *ledger) noexcept nogil
