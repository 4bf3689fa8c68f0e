# tls.pxd - level 5: TLS on a connection's own descriptor, and THE coupling to OpenSSL.
#
# Owns: the function pointers, taken once (attach) from the OpenSSL that `cryptography` carries; one buffer for ciphertext; and, in each
#   Tls, an SSL with its two memory BIOs. Borrows: SSL_CTXs, which pyOpenSSL made (Credential keeps them alive).
# Called by: doorway, downstream, upstream (transport_*). No socket BIO: the descriptor is read and written here, so that one receive serves
#   many records, one send carries many, and the kernel is never asked for what it does not have.
# Invariants: `sealed` bytes at the head of the connection's output are in `outward` as ciphertext, and stay in the output until the kernel
#   has taken them, so that an empty OutQueue means "everything is written"; OpenSSL's error queue is empty between two calls.
#
#   peer --recv--> wire --> inward --SSL_read--> plain text          plain text --SSL_write--> outward --send--> peer

from libc.errno cimport EAGAIN, EINTR, errno

from gateway._core.buf cimport OutQueue, out_send
from gateway._core.sys cimport recv, ssize_t
from gateway._core.types cimport uint8_t, uint16_t, uint32_t

cdef struct SSL:           # OpenSSL's, opaque
    int opaque
cdef struct SSL_CTX:
    int opaque
cdef struct SSL_SESSION:
    int opaque
cdef struct BIO:
    int opaque

cdef enum Io:              # what a receive answers when it is not a number of bytes; 0 is the end of what the peer sends
    IO_AGAIN = -1          # nothing now
    IO_LOST = -2           # the connection is broken

cdef enum Shake:           # what tls_handshake answers
    SHAKE_DONE = 1
    SHAKE_WAIT = 0
    SHAKE_FAILED = -1

cdef struct Tls:
    SSL *ssl
    BIO *inward            # ciphertext that OpenSSL has not read yet
    BIO *outward           # ciphertext that the kernel has not taken yet
    uint32_t waiting       # bytes in outward
    uint32_t sealed        # plain bytes that they stand for
    uint32_t batch         # bytes that outward held when they were sealed, and what was said since
    uint32_t credited      # plain bytes of these that were told as sent already
    int reason             # why the handshake failed: OpenSSL's reason code, 0 when the other side was gone
    const uint8_t *alpn    # with own_alpn: as in Shown, of this connection alone; borrowed until the handshake is done
    size_t alpn_n          # 0: nothing is chosen, whatever the client offers
    bint own_alpn
    bint drained           # this tls_recv asked the kernel, and emptied it
    bint unread            # the last SSL_read may have left plain text behind
    bint grown             # the BIOs have grown beyond what an idle connection may keep
    bint cut               # the other side ended without close_notify (RFC 8446 §6.1): what has no other end is not complete
    bint is_open           # the handshake is done
    bint is_shut           # close_notify was sent
    bint distrusted        # something of the other side's certificate failed, and it was let through

cdef enum:
    STAPLES = 4            # kinds of keys that TLS knows: RSA, ECDSA, Ed25519, Ed448

cdef struct Staple:
    const void *certificate    # OpenSSL's, in the SSL_CTX; only compared
    const uint8_t *der     # of the response that is stapled to it
    size_t n

cdef struct Shown:         # what OpenSSL's callbacks get; lives in a Credential
    const uint8_t *alpn    # protocols in order of preference, each with its length before it
    size_t alpn_n
    Staple staples[STAPLES]
    int staples_n

cdef class Credential:     # one SSL_CTX of a listener; whoever makes a handshake with it holds it until that is over
    cdef SSL_CTX *ctx
    cdef object owner      # the pyOpenSSL Context; belongs to this one alone
    cdef bytes alpn
    cdef list ocsp         # what the staples point into
    cdef Shown shown

cdef class ServerTLS:      # what a listener shows to clients; immutable
    cdef dict exact        # name -> Credential
    cdef dict wild         # b".example.com" -> Credential, for "*.example.com"
    cdef Credential default
    cdef bint asks_client
    cdef bint lets_through # whose certificate fails is let in, and is nobody
    # The certificate for a name in lower case (RFC 6125 §6.4.3: a star stands for one label); the default when none has it.
    cdef Credential choose(self, const uint8_t *name, size_t n)

cdef class ClientTLS:      # how the endpoints of a cluster are reached; immutable
    cdef SSL_CTX *ctx
    cdef object owner
    cdef readonly bytes identity
    cdef bytes server_name
    cdef bytes ip
    cdef object names
    cdef bytes alpn
    cdef bint carries      # what ALPN chooses is between the endpoint and the client

# A Tls for a new connection, NULL when memory is out. tls_close frees it.
cdef Tls *tls_accept(Credential context) noexcept nogil
# session may be NULL.
cdef Tls *tls_connect(ClientTLS client, SSL_SESSION *session) noexcept
cdef void tls_close(Tls *tls) noexcept nogil
# Bytes that were received before TLS began. 0, or -1 when memory is out.
cdef int tls_feed(Tls *tls, const uint8_t *p, size_t n) noexcept nogil
# Goes on with the handshake as far as the kernel lets it: a Shake. After SHAKE_FAILED the alert is out, and reason says why.
cdef int tls_handshake(Tls *tls, int fd) noexcept nogil
# As recv: plain bytes, 0 (ended), or an Io.
cdef ssize_t tls_recv(Tls *tls, int fd, uint8_t *p, size_t n) noexcept nogil
# As buf.out_send. Also sends what the handshake or an alert left in outward.
cdef Py_ssize_t tls_send(Tls *tls, int fd, OutQueue *queue, const uint8_t *p, size_t n) noexcept nogil
# Says close_notify, as far as the kernel takes it.
cdef void tls_finish(Tls *tls, int fd) noexcept nogil
# Gives memory back; called when the connection begins to idle.
cdef void tls_rest(Tls *tls) noexcept nogil

# The protocol that ALPN chose, e.g. b"h2"; empty when none.
cdef size_t tls_protocol(Tls *tls, const uint8_t **p) noexcept nogil
cdef bint tls_is_resumed(Tls *tls) noexcept nogil
cdef const char *tls_version(Tls *tls) noexcept nogil          # "TLSv1.3"
# DER of the other side's certificate; None when it showed none, or one that did not verify.
cdef bytes tls_certificate(Tls *tls)
# For the next connection to the same endpoint; NULL when there is none. tls_session_free frees it.
cdef SSL_SESSION *tls_session(Tls *tls) noexcept nogil
cdef void tls_session_free(SSL_SESSION *session) noexcept nogil
# Static text for the log: why the handshake failed.
cdef const char *tls_why(Tls *tls) noexcept nogil

# ---- a connection's bytes, in the clear (tls NULL) or not --------------------------------------------------------------------------

cdef inline ssize_t transport_recv(int fd, Tls *tls, uint8_t *p, size_t n) noexcept nogil:
    cdef ssize_t got
    if tls != NULL:
        return tls_recv(tls, fd, p, n)
    while True:
        got = recv(fd, p, n, 0)
        if got >= 0:
            return got
        if errno == EAGAIN:
            return IO_AGAIN
        if errno != EINTR:
            return IO_LOST

# Whether a receive that answered got of n bytes says that there is nothing more for now.
cdef inline bint transport_drained(Tls *tls, ssize_t got, size_t n) noexcept nogil:
    if tls == NULL:
        return <size_t> got < n
    return tls.drained and not tls.unread

cdef inline Py_ssize_t transport_send(int fd, Tls *tls, OutQueue *queue, const uint8_t *p, size_t n, bint more) noexcept nogil:
    if tls == NULL:
        return out_send(fd, queue, p, n, more)
    return tls_send(tls, fd, queue, p, n)
