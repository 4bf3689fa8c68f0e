# websocket.pxd - level 4: WebSocket between HTTP/1.1, where it is an Upgrade (RFC 6455), and HTTP/2, where it is an extended CONNECT
# (RFC 8441). An exchange knows the form of HTTP/1.1 alone: a GET with Upgrade, answered 101. The streams of HTTP/2 turn theirs into it.
# Owns: nothing. Called by: h2_downstream, h2_upstream; once a tunnel, so that plain Python will do.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint64_t

# An extended CONNECT becomes the GET of an Upgrade, with a key made of the random words. -1 when memory is out.
cdef int connect_to_upgrade(HeaderBlock head, uint64_t random_hi, uint64_t random_lo) noexcept
# The answer to it: a 101 becomes a 200 that content follows. The caller sets the status back.
cdef void switched_to_ok(HeaderBlock head) noexcept
# A 2xx of an endpoint becomes the 101 that answers the key (None: nobody checks). -1 when memory is out.
cdef int ok_to_switched(HeaderBlock head, bytes key) noexcept
# The key of a request; None when it has none.
cdef bytes key_of(HeaderBlock head)
