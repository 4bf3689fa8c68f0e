"""TLS records on a connection's own descriptor, and the coupling to OpenSSL; see tls.pxd.

Contexts (certificates, authorities, versions, ciphers) are pyOpenSSL's and are made once in a configuration's life. From there on
OpenSSL is called through its C functions; their addresses come from `cryptography`, so that no second OpenSSL is linked and no header
of it is needed to build.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from gateway._core.buf cimport Block, OutQueue, out_append, out_consume
from gateway._core.sys cimport MSG_NOSIGNAL, recv, send, ssize_t

cdef enum:
    WIRE = 65536           # bytes of ciphertext per receive
    SEAL = 65536           # plain bytes sealed before the kernel is asked to take them
    RECORD = 16384         # plain bytes of a record at most (RFC 8446 §5.1)
    KEPT = 8192            # a BIO that has held more than this gives its memory back before the connection idles
    RELEASE_BUFFERS = 0x10 # SSL_MODE_RELEASE_BUFFERS
    NO_PARTIAL_WILDCARDS = 4   # X509_CHECK_FLAG: a star is a whole label or nothing
    WANT_READ = 2          # SSL_ERROR_WANT_READ
    ZERO_RETURN = 6        # SSL_ERROR_ZERO_RETURN: close_notify came
    CALLBACK_OK = 0        # SSL_TLSEXT_ERR_*
    CALLBACK_FATAL = 2
    CALLBACK_NOTHING = 3
    VERIFY_PEER = 1        # SSL_VERIFY_*
    VERIFY_CLIENT_ONCE = 4

ctypedef int (*select_t)(SSL *, const uint8_t **, uint8_t *, const uint8_t *, unsigned int, void *) noexcept nogil
ctypedef int (*staple_t)(SSL *, void *) noexcept nogil
ctypedef int (*verify_t)(int, void *) noexcept nogil

cdef SSL *(*SSL_new)(SSL_CTX *) noexcept nogil
cdef void (*SSL_free)(SSL *) noexcept nogil
cdef void (*SSL_set_bio)(SSL *, BIO *, BIO *) noexcept nogil
cdef void (*SSL_set_accept_state)(SSL *) noexcept nogil
cdef void (*SSL_set_connect_state)(SSL *) noexcept nogil
cdef int (*SSL_do_handshake)(SSL *) noexcept nogil
cdef int (*SSL_read)(SSL *, void *, int) noexcept nogil
cdef int (*SSL_write)(SSL *, const void *, int) noexcept nogil
cdef int (*SSL_shutdown)(SSL *) noexcept nogil
cdef int (*SSL_get_error)(SSL *, int) noexcept nogil
cdef int (*SSL_pending)(SSL *) noexcept nogil
cdef void *(*BIO_s_mem)() noexcept nogil
cdef BIO *(*BIO_new)(void *) noexcept nogil
cdef int (*BIO_free)(BIO *) noexcept nogil
cdef int (*BIO_read)(BIO *, void *, int) noexcept nogil
cdef int (*BIO_write)(BIO *, const void *, int) noexcept nogil
cdef long (*BIO_get_mem_data)(BIO *, char **) noexcept nogil
cdef void (*ERR_clear_error)() noexcept nogil
cdef unsigned long (*ERR_get_error)() noexcept nogil
cdef int (*ERR_GET_REASON)(unsigned long) noexcept nogil
cdef void (*SSL_get0_alpn_selected)(SSL *, const uint8_t **, unsigned int *) noexcept nogil
cdef int (*SSL_session_reused)(SSL *) noexcept nogil
cdef const char *(*SSL_get_version)(SSL *) noexcept nogil
cdef void *(*SSL_get_peer_certificate)(SSL *) noexcept nogil
cdef void *(*SSL_get_certificate)(const SSL *) noexcept nogil
cdef int (*i2d_X509_bio)(BIO *, void *) noexcept nogil
cdef void (*X509_free)(void *) noexcept nogil
cdef long (*SSL_get_verify_result)(SSL *) noexcept nogil
cdef void *(*SSL_get0_param)(SSL *) noexcept nogil
cdef int (*X509_VERIFY_PARAM_set1_host)(void *, const char *, size_t) noexcept nogil
cdef int (*X509_VERIFY_PARAM_set1_ip)(void *, const uint8_t *, size_t) noexcept nogil
cdef void (*X509_VERIFY_PARAM_set_hostflags)(void *, unsigned int) noexcept nogil
cdef void (*SSL_set_tlsext_host_name)(SSL *, const char *) noexcept nogil
cdef int (*SSL_set_alpn_protos)(SSL *, const uint8_t *, unsigned int) noexcept nogil
cdef SSL_SESSION *(*SSL_get1_session)(SSL *) noexcept nogil
cdef int (*SSL_set_session)(SSL *, SSL_SESSION *) noexcept nogil
cdef void (*SSL_SESSION_free)(SSL_SESSION *) noexcept nogil
cdef long (*SSL_CTX_set_mode)(SSL_CTX *, long) noexcept nogil
cdef void (*SSL_CTX_set_alpn_select_cb)(SSL_CTX *, select_t, void *) noexcept nogil
cdef void (*SSL_CTX_set_verify)(SSL_CTX *, int, verify_t) noexcept nogil
cdef long (*SSL_CTX_set_tlsext_status_cb)(SSL_CTX *, staple_t) noexcept nogil
cdef long (*SSL_CTX_set_tlsext_status_arg)(SSL_CTX *, void *) noexcept nogil
cdef long (*SSL_set_tlsext_status_ocsp_resp)(SSL *, uint8_t *, int) noexcept nogil
cdef void *(*OPENSSL_malloc)(size_t) noexcept nogil

# Where each address goes.
cdef dict SLOTS = {
    "SSL_new": <uintptr_t> &SSL_new,
    "SSL_free": <uintptr_t> &SSL_free,
    "SSL_set_bio": <uintptr_t> &SSL_set_bio,
    "SSL_set_accept_state": <uintptr_t> &SSL_set_accept_state,
    "SSL_set_connect_state": <uintptr_t> &SSL_set_connect_state,
    "SSL_do_handshake": <uintptr_t> &SSL_do_handshake,
    "SSL_read": <uintptr_t> &SSL_read,
    "SSL_write": <uintptr_t> &SSL_write,
    "SSL_shutdown": <uintptr_t> &SSL_shutdown,
    "SSL_get_error": <uintptr_t> &SSL_get_error,
    "SSL_pending": <uintptr_t> &SSL_pending,
    "BIO_s_mem": <uintptr_t> &BIO_s_mem,
    "BIO_new": <uintptr_t> &BIO_new,
    "BIO_free": <uintptr_t> &BIO_free,
    "BIO_read": <uintptr_t> &BIO_read,
    "BIO_write": <uintptr_t> &BIO_write,
    "BIO_get_mem_data": <uintptr_t> &BIO_get_mem_data,
    "ERR_clear_error": <uintptr_t> &ERR_clear_error,
    "ERR_get_error": <uintptr_t> &ERR_get_error,
    "ERR_GET_REASON": <uintptr_t> &ERR_GET_REASON,
    "SSL_get0_alpn_selected": <uintptr_t> &SSL_get0_alpn_selected,
    "SSL_session_reused": <uintptr_t> &SSL_session_reused,
    "SSL_get_version": <uintptr_t> &SSL_get_version,
    "SSL_get_peer_certificate": <uintptr_t> &SSL_get_peer_certificate,
    "SSL_get_certificate": <uintptr_t> &SSL_get_certificate,
    "i2d_X509_bio": <uintptr_t> &i2d_X509_bio,
    "X509_free": <uintptr_t> &X509_free,
    "SSL_get_verify_result": <uintptr_t> &SSL_get_verify_result,
    "SSL_get0_param": <uintptr_t> &SSL_get0_param,
    "X509_VERIFY_PARAM_set1_host": <uintptr_t> &X509_VERIFY_PARAM_set1_host,
    "X509_VERIFY_PARAM_set1_ip": <uintptr_t> &X509_VERIFY_PARAM_set1_ip,
    "X509_VERIFY_PARAM_set_hostflags": <uintptr_t> &X509_VERIFY_PARAM_set_hostflags,
    "SSL_set_tlsext_host_name": <uintptr_t> &SSL_set_tlsext_host_name,
    "SSL_set_alpn_protos": <uintptr_t> &SSL_set_alpn_protos,
    "SSL_get1_session": <uintptr_t> &SSL_get1_session,
    "SSL_set_session": <uintptr_t> &SSL_set_session,
    "SSL_SESSION_free": <uintptr_t> &SSL_SESSION_free,
    "SSL_CTX_set_mode": <uintptr_t> &SSL_CTX_set_mode,
    "SSL_CTX_set_alpn_select_cb": <uintptr_t> &SSL_CTX_set_alpn_select_cb,
    "SSL_CTX_set_verify": <uintptr_t> &SSL_CTX_set_verify,
    "SSL_CTX_set_tlsext_status_cb": <uintptr_t> &SSL_CTX_set_tlsext_status_cb,
    "SSL_CTX_set_tlsext_status_arg": <uintptr_t> &SSL_CTX_set_tlsext_status_arg,
    "SSL_set_tlsext_status_ocsp_resp": <uintptr_t> &SSL_set_tlsext_status_ocsp_resp,
    "OPENSSL_malloc": <uintptr_t> &OPENSSL_malloc,
}
cdef uint8_t *wire = NULL      # WIRE bytes: ciphertext on its way in, gathered plain text on its way out; never across two calls
cdef Tls *shaking = NULL       # whose handshake OpenSSL is in: its callbacks are told of the context alone
cdef str loaded = ""
cdef object borrowed = None    # cryptography's module, kept: its functions are called


def attach():
    global wire, loaded, borrowed
    if loaded:
        return loaded
    from cryptography.hazmat.bindings._rust import _openssl

    lib, ffi = _openssl.lib, _openssl.ffi
    missing = [name for name in SLOTS if not hasattr(lib, name)]
    if missing:
        raise ImportError(f"cryptography {_openssl.__name__} lacks {', '.join(missing)}: this version of it is not supported")
    if wire == NULL:
        wire = <uint8_t *> malloc(WIRE)
        if wire == NULL:
            raise MemoryError
    for name, slot in SLOTS.items():
        (<void **> <uintptr_t> slot)[0] = <void *> <uintptr_t> int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))
    borrowed = _openssl
    loaded = ffi.string(lib.OpenSSL_version(lib.OPENSSL_VERSION)).decode()
    return loaded


# ---- what listeners and clusters bring -----------------------------------------------------------------------------------------------

cdef set owned = set()         # addresses of SSL_CTXs in use: a callback's argument is its one Credential


cdef bint is_same(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if a[i] != b[i]:
            return False
    return True


cdef int select_protocol(
    SSL *ssl, const uint8_t **out, uint8_t *out_n, const uint8_t *offered, unsigned int offered_n, void *arg
) noexcept nogil:
    """Our first preference among what the client offers (RFC 7301 §3.2); nothing in common ends the handshake."""
    cdef Shown *shown = <Shown *> arg
    cdef const uint8_t *ours = shown.alpn
    cdef const uint8_t *end = ours + shown.alpn_n
    cdef unsigned int i
    if shaking != NULL and shaking.own_alpn:
        if shaking.alpn_n == 0:
            return CALLBACK_NOTHING
        ours = shaking.alpn
        end = ours + shaking.alpn_n
    while ours < end:
        i = 0
        while i < offered_n and i + 1 + offered[i] <= offered_n:
            if offered[i] == ours[0] and is_same(offered + i + 1, ours + 1, ours[0]):
                out[0] = offered + i + 1
                out_n[0] = ours[0]
                return CALLBACK_OK
            i += 1 + <unsigned int> offered[i]
        ours += 1 + ours[0]
    return CALLBACK_FATAL


cdef int staple(SSL *ssl, void *arg) noexcept nogil:
    """The OCSP response beside the certificate (RFC 6066 §8), which has been chosen by now: of two kinds of keys, say."""
    cdef Shown *shown = <Shown *> arg
    cdef const void *certificate = SSL_get_certificate(ssl)
    cdef void *copy
    cdef int i
    for i in range(shown.staples_n):
        if shown.staples[i].certificate != certificate:
            continue
        copy = OPENSSL_malloc(shown.staples[i].n)
        if copy == NULL:
            break
        memcpy(copy, shown.staples[i].der, shown.staples[i].n)
        # the SSL owns the copy from now on
        SSL_set_tlsext_status_ocsp_resp(ssl, <uint8_t *> copy, <int> shown.staples[i].n)
        return CALLBACK_OK
    return CALLBACK_NOTHING


cdef int pass_over(int ok, void *store) noexcept nogil:
    """Lets a verification go on over what failed, and keeps that it did: here, because OpenSSL's own word at its end is about this
    chain alone, and not about that of a revocation list, say."""
    if not ok:
        if shaking == NULL:
            return 0
        shaking.distrusted = True
    return 1


cdef class Credential:
    def __init__(self, address, owner, alpn, ocsp, lets_through):
        cdef bytes der
        attach()
        if address in owned:
            raise ValueError("this context belongs to another listener or name already")
        self.ctx = <SSL_CTX *> <uintptr_t> int(address)
        self.owner = owner
        self.alpn = alpn
        self.ocsp = list(ocsp)
        self.shown.alpn = <const uint8_t *> <const char *> self.alpn
        self.shown.alpn_n = <size_t> len(self.alpn)
        if len(self.ocsp) > STAPLES:
            raise ValueError("more OCSP responses than kinds of keys")
        for certificate, response in self.ocsp:
            der = response
            self.shown.staples[self.shown.staples_n].certificate = <const void *> <uintptr_t> int(certificate)
            self.shown.staples[self.shown.staples_n].der = <const uint8_t *> <const char *> der
            self.shown.staples[self.shown.staples_n].n = <size_t> len(der)
            self.shown.staples_n += 1
        owned.add(address)
        SSL_CTX_set_mode(self.ctx, RELEASE_BUFFERS)
        SSL_CTX_set_alpn_select_cb(self.ctx, select_protocol, &self.shown)
        SSL_CTX_set_tlsext_status_cb(self.ctx, staple)
        SSL_CTX_set_tlsext_status_arg(self.ctx, &self.shown)
        if lets_through:
            SSL_CTX_set_verify(self.ctx, VERIFY_PEER | VERIFY_CLIENT_ONCE, pass_over)

    def __dealloc__(self):
        if self.ctx != NULL:
            owned.discard(<uintptr_t> self.ctx)


cdef class ServerTLS:
    def __init__(self, contexts, *, asks_client, lets_through=False, alpn):
        cdef Credential context
        self.exact = {}
        self.wild = {}
        self.asks_client = asks_client
        self.lets_through = lets_through
        for names, address, owner, ocsp in contexts:
            context = Credential(address, owner, alpn, ocsp, lets_through)
            if self.default is None:
                self.default = context
            for name in names:
                if name[:2] == b"*.":
                    self.wild.setdefault(name[1:], context)
                else:
                    self.exact.setdefault(name, context)
        if self.default is None:
            raise ValueError("no certificate")

    cdef Credential choose(self, const uint8_t *name, size_t n):
        cdef bytes text = name[:n]
        cdef Credential context
        cdef Py_ssize_t dot
        context = self.exact.get(text)
        if context is None:
            dot = text.find(b".")
            if dot > 0:
                context = self.wild.get(text[dot:])
        return self.default if context is None else context


cdef class ClientTLS:
    def __init__(self, context, owner, *, identity, server_name, ip, names, alpn, carries=False):
        attach()
        if not (server_name or ip or names):
            raise ValueError("nothing to verify an endpoint by")
        self.ctx = <SSL_CTX *> <uintptr_t> int(context)
        self.owner = owner
        self.identity = identity
        self.server_name = server_name
        self.ip = ip
        self.names = names
        self.alpn = alpn
        self.carries = carries
        SSL_CTX_set_mode(self.ctx, RELEASE_BUFFERS)


# ---- a connection's life -------------------------------------------------------------------------------------------------------------


cdef Tls *new_tls(SSL_CTX *ctx) noexcept nogil:
    cdef Tls *tls = <Tls *> calloc(1, sizeof(Tls))
    if tls == NULL:
        return NULL
    tls.ssl = SSL_new(ctx)
    if tls.ssl != NULL:
        tls.inward = BIO_new(BIO_s_mem())
        tls.outward = BIO_new(BIO_s_mem())
        if tls.inward != NULL and tls.outward != NULL:
            # the SSL owns both from now on
            SSL_set_bio(tls.ssl, tls.inward, tls.outward)
            return tls
        BIO_free(tls.inward)
        BIO_free(tls.outward)
        SSL_free(tls.ssl)
    ERR_clear_error()
    free(tls)
    return NULL


cdef Tls *tls_accept(Credential context) noexcept nogil:
    cdef Tls *tls = new_tls(context.ctx)
    if tls != NULL:
        SSL_set_accept_state(tls.ssl)
    return tls


cdef Tls *tls_connect(ClientTLS client, SSL_SESSION *session) noexcept:
    cdef Tls *tls = new_tls(client.ctx)
    cdef void *param
    if tls == NULL:
        return NULL
    SSL_set_connect_state(tls.ssl)
    param = SSL_get0_param(tls.ssl)
    X509_VERIFY_PARAM_set_hostflags(param, NO_PARTIAL_WILDCARDS)
    if client.names is None and client.ip:
        X509_VERIFY_PARAM_set1_ip(param, <const uint8_t *> <const char *> client.ip, <size_t> len(client.ip))
    elif client.names is None:
        X509_VERIFY_PARAM_set1_host(param, client.server_name, <size_t> len(client.server_name))
    if client.server_name:
        SSL_set_tlsext_host_name(tls.ssl, client.server_name)
    if client.alpn:
        SSL_set_alpn_protos(tls.ssl, <const uint8_t *> <const char *> client.alpn, <unsigned int> len(client.alpn))
    if session != NULL:
        SSL_set_session(tls.ssl, session)
    ERR_clear_error()
    return tls


cdef void tls_close(Tls *tls) noexcept nogil:
    SSL_free(tls.ssl)
    ERR_clear_error()
    free(tls)


cdef int tls_feed(Tls *tls, const uint8_t *p, size_t n) noexcept nogil:
    if n > KEPT:
        tls.grown = True
    return 0 if n == 0 or BIO_write(tls.inward, p, <int> n) == <int> n else -1


cdef int flush(Tls *tls, int fd) noexcept nogil:
    """1: everything in outward is with the kernel; 0: it takes no more for now; -1: the connection is broken."""
    cdef char *p = NULL
    cdef ssize_t sent
    cdef int part
    while tls.waiting:
        BIO_get_mem_data(tls.outward, &p)
        sent = send(fd, p, tls.waiting, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            return 0 if errno == EAGAIN else -1
        tls.waiting -= <uint32_t> sent
        # a memory BIO forgets what was read from it, and in no other way
        while sent:
            part = BIO_read(tls.outward, wire, <int> sent if sent < WIRE else WIRE)
            if part <= 0:
                return -1
            sent -= part
    return 1


cdef void count_outward(Tls *tls) noexcept nogil:
    cdef char *p = NULL
    tls.waiting = <uint32_t> BIO_get_mem_data(tls.outward, &p)
    if tls.waiting > KEPT:
        tls.grown = True


cdef int answer(Tls *tls, int fd) noexcept nogil:
    """Sends what reading made OpenSSL say (that it does not renegotiate, say); -1 when nobody takes all that."""
    cdef uint32_t before = tls.waiting
    count_outward(tls)
    if tls.waiting != before:
        # behind what is sealed: those bytes are out before it is
        tls.batch += tls.waiting - before
        flush(tls, fd)
    return -1 if tls.waiting > 2 * SEAL else 0


cdef int receive(Tls *tls, int fd) noexcept nogil:
    """Takes what the kernel has into inward: 1, 0 (ended), or an Io."""
    cdef ssize_t got
    while True:
        got = recv(fd, wire, WIRE, 0)
        if got > 0:
            tls.drained = got < WIRE
            return 1 if tls_feed(tls, wire, <size_t> got) == 0 else IO_LOST
        if got == 0:
            tls.drained = False
            tls.cut = True
            return 0
        if errno == EAGAIN:
            tls.drained = True
            return IO_AGAIN
        if errno != EINTR:
            return IO_LOST


cdef int tls_handshake(Tls *tls, int fd) noexcept nogil:
    global shaking
    cdef int done
    cdef int took
    while True:
        shaking = tls
        done = SSL_do_handshake(tls.ssl)
        shaking = NULL
        took = SSL_get_error(tls.ssl, done) if done != 1 else 0
        count_outward(tls)
        if done != 1 and took != WANT_READ:
            tls.reason = ERR_GET_REASON(ERR_get_error())
            ERR_clear_error()
            flush(tls, fd)
            return SHAKE_FAILED
        if flush(tls, fd) < 0:
            return SHAKE_FAILED
        if done == 1:
            tls.is_open = True
            tls.reason = 0
            return SHAKE_DONE
        took = receive(tls, fd)
        if took == IO_AGAIN:
            return SHAKE_WAIT
        if took <= 0:
            return SHAKE_FAILED


cdef ssize_t tls_recv(Tls *tls, int fd, uint8_t *p, size_t n) noexcept nogil:
    cdef size_t got = 0
    cdef int took
    cdef int error
    cdef char *rest = NULL
    # After the handshake, and after a read that filled its buffer, there may be something without asking the kernel.
    cdef bint may_have = tls.unread or BIO_get_mem_data(tls.inward, &rest) > 0
    # What was true of the call before says nothing now: more may have come since, and been told to a reader that was paused.
    tls.drained = False
    while True:
        if may_have:
            while got < n:
                took = SSL_read(tls.ssl, p + got, <int> (n - got))
                if took <= 0:
                    error = SSL_get_error(tls.ssl, took)
                    if error == WANT_READ:
                        break
                    ERR_clear_error()
                    if got:
                        # told with the next call, which ends the same way
                        tls.unread = True
                        return <ssize_t> got
                    count_outward(tls)
                    flush(tls, fd)
                    return 0 if error == ZERO_RETURN else IO_LOST
                got += <size_t> took
                if BIO_get_mem_data(tls.inward, &rest) == 0 and SSL_pending(tls.ssl) == 0:
                    break
            tls.unread = got == n
            if answer(tls, fd) < 0 and got == 0:
                return IO_LOST
            if got:
                return <ssize_t> got
        # Asked again even after a short receive: what came was no content (tickets, part of a record), and an end that came along
        # with it is not told again.
        took = receive(tls, fd)
        if took <= 0:
            return took
        may_have = True


cdef int seal(Tls *tls, OutQueue *queue, const uint8_t *p, size_t n) noexcept nogil:
    """Makes records of what the queue holds and then of p[0:n], SEAL bytes at most; 0, or -1 when OpenSSL refuses."""
    cdef Block *block = queue.head
    cdef size_t off = block.start if block != NULL else 0
    cdef size_t left = queue.size + n
    cdef size_t record
    cdef size_t gathered
    cdef size_t part
    cdef const uint8_t *start
    if left > SEAL:
        left = SEAL
    while left:
        record = left if left < RECORD else RECORD
        while block != NULL and off == block.end:
            block = block.next
            off = block.start if block != NULL else 0
        if block == NULL:
            start = p
            p += record
        elif block.end - off >= record:
            start = block.data + off
            off += record
        else:
            # pieces of several blocks, or of the queue and p: a record each would cost more than the copy
            start = wire
            gathered = 0
            while gathered < record:
                if block == NULL:
                    part = record - gathered
                    memcpy(wire + gathered, p, part)
                    p += part
                else:
                    part = block.end - off
                    if part > record - gathered:
                        part = record - gathered
                    memcpy(wire + gathered, block.data + off, part)
                    off += part
                    if off == block.end:
                        block = block.next
                        off = block.start if block != NULL else 0
                gathered += part
        if SSL_write(tls.ssl, start, <int> record) != <int> record:
            ERR_clear_error()
            return -1
        tls.sealed += <uint32_t> record
        left -= record
    count_outward(tls)
    tls.batch = tls.waiting
    return 0


cdef Py_ssize_t tls_send(Tls *tls, int fd, OutQueue *queue, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t total = 0
    cdef size_t took
    cdef uint32_t credit
    while True:
        if flush(tls, fd) < 0:
            return -1
        # A record that went out in part counts already: nobody may take the bytes for unsent.
        credit = tls.sealed
        if tls.waiting and credit > tls.batch - tls.waiting:
            credit = tls.batch - tls.waiting
        if credit > tls.credited:
            total += credit - tls.credited
            tls.credited = credit
        if tls.waiting:
            break
        took = tls.sealed if tls.sealed < queue.size else queue.size
        if took:
            out_consume(queue, took)
        p += tls.sealed - took
        n -= tls.sealed - took
        tls.sealed = tls.credited = 0
        if queue.size == 0 and n == 0:
            break
        if seal(tls, queue, p, n) < 0:
            return -1
    if n and out_append(queue, p, n) < 0:
        return -1
    return <Py_ssize_t> total


cdef void tls_finish(Tls *tls, int fd) noexcept nogil:
    if tls.is_open and not tls.is_shut:
        tls.is_shut = True
        if SSL_shutdown(tls.ssl) < 0:
            ERR_clear_error()
        count_outward(tls)
    flush(tls, fd)


cdef void tls_rest(Tls *tls) noexcept nogil:
    cdef BIO *inward
    cdef BIO *outward
    cdef char *p = NULL
    if not tls.grown or tls.waiting or tls.unread or BIO_get_mem_data(tls.inward, &p):
        return
    inward = BIO_new(BIO_s_mem())
    outward = BIO_new(BIO_s_mem())
    if inward == NULL or outward == NULL:
        BIO_free(inward)
        BIO_free(outward)
        ERR_clear_error()
        return
    SSL_set_bio(tls.ssl, inward, outward)
    tls.inward = inward
    tls.outward = outward
    tls.grown = False


# ---- facts ---------------------------------------------------------------------------------------------------------------------------


cdef size_t tls_protocol(Tls *tls, const uint8_t **p) noexcept nogil:
    cdef unsigned int n = 0
    SSL_get0_alpn_selected(tls.ssl, p, &n)
    return n


cdef bint tls_is_resumed(Tls *tls) noexcept nogil:
    return SSL_session_reused(tls.ssl) == 1


cdef const char *tls_version(Tls *tls) noexcept nogil:
    return SSL_get_version(tls.ssl)


cdef bytes tls_certificate(Tls *tls):
    cdef void *certificate
    cdef BIO *bio
    cdef char *p = NULL
    cdef long n
    cdef bytes der = None
    if tls.distrusted or SSL_get_verify_result(tls.ssl) != 0:
        return None
    certificate = SSL_get_peer_certificate(tls.ssl)
    if certificate == NULL:
        return None
    bio = BIO_new(BIO_s_mem())
    if bio != NULL:
        if i2d_X509_bio(bio, certificate) == 1:
            n = BIO_get_mem_data(bio, &p)
            der = p[:n]
        BIO_free(bio)
    X509_free(certificate)
    ERR_clear_error()
    return der


cdef SSL_SESSION *tls_session(Tls *tls) noexcept nogil:
    return SSL_get1_session(tls.ssl)


cdef void tls_session_free(SSL_SESSION *session) noexcept nogil:
    SSL_SESSION_free(session)


cdef const char *tls_why(Tls *tls) noexcept nogil:
    cdef long verified = SSL_get_verify_result(tls.ssl)
    if verified == 0:
        if tls.cut:
            return b"tls_closed"
        if 1000 <= tls.reason < 1256:
            return why_alert(tls.reason - 1000)
        return b"tls_handshake"
    if verified == 9:
        return b"tls_certificate_not_yet_valid"
    if verified == 10:
        return b"tls_certificate_expired"
    if verified == 18 or verified == 19:
        return b"tls_certificate_self_signed"
    if verified == 2 or verified == 20 or verified == 21:
        return b"tls_certificate_unknown_issuer"
    if verified == 23:
        return b"tls_certificate_revoked"
    if verified == 3 or verified == 12:
        return b"tls_no_revocation_list"
    if verified == 62 or verified == 64:
        return b"tls_certificate_wrong_name"
    return b"tls_certificate"


cdef const char *why_alert(int alert) noexcept nogil:
    """The alert that the other side sent (RFC 8446 §6.2)."""
    if alert == 40:
        return b"tls_alert_handshake_failure"
    if alert == 42 or 44 <= alert <= 46 or alert == 48:
        return b"tls_alert_bad_certificate"
    if alert == 70:
        return b"tls_alert_protocol_version"
    if alert == 112:
        return b"tls_alert_unrecognized_name"
    if alert == 116:
        return b"tls_alert_certificate_required"
    if alert == 120:
        return b"tls_alert_no_application_protocol"
    return b"tls_alert"
