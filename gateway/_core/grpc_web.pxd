# grpc_web.pxd - level 6: gRPC-Web (PROTOCOL-WEB of gRPC) in front of an exchange that knows gRPC alone.
#
# Owns: up to three bytes of base64 that wait for the rest of their group. Holds: the Downstream behind it, until the answer is complete.
# Called by: exchange, as its downstream. What differs from gRPC: the content-type, trailers as a last frame of the content, and, in
#   the text form, base64 around the content of both sides.

from gateway._core.headers cimport HeaderBlock
from gateway._core.seam cimport Downstream
from gateway._core.types cimport uint8_t

cdef class GrpcWeb(Downstream):
    cdef Downstream behind
    cdef bint is_text      # application/grpc-web-text
    cdef bint has_content  # the answer's head did not end it
    cdef uint8_t up[4]     # base64 of the request that waits
    cdef uint8_t up_n
    cdef uint8_t down[3]   # content of the answer that waits
    cdef uint8_t down_n

    # A wrapper, when the request is one of gRPC-Web; it becomes one of gRPC. None: it is not, or memory is out.
    @staticmethod
    cdef GrpcWeb around(Downstream behind, HeaderBlock request)
    # Decodes base64 of p[0:n] into out (3/4 of n, and 3, at most): bytes written, or -1 for what is none.
    cdef Py_ssize_t decode(self, const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
    # The same for at most 4096 bytes at *p, which are taken off.
    cdef Py_ssize_t take(self, const uint8_t **p, size_t *n, uint8_t *out) noexcept nogil
    cdef bint encode(self, const uint8_t *p, size_t n, bint is_last) noexcept
