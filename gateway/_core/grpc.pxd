# grpc.pxd - level 4: what the gateway has to know of gRPC (the protocol of gRPC over HTTP/2): whose requests are, how long they may
# take, and how an error of the gateway's own is told. Owns: nothing. Called by: exchange.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint32_t, uint64_t

# content-type is application/grpc, alone or with a suffix or parameters; gRPC-Web is another one.
cdef bint is_grpc(HeaderBlock request) noexcept nogil
# Milliseconds of grpc-timeout, rounded up; 0 when there is none, or none that can be read.
cdef uint64_t grpc_timeout(HeaderBlock request) noexcept nogil
# Adds the status of a call that ends by the gateway's doing to its trailers, or to a head that has all. -1 when memory is out.
cdef int add_grpc_status(HeaderBlock block, int status, const char *reason) noexcept nogil
# Makes a trailers-only response of what is a HTTP status otherwise. The block is cleared already. -1 when memory is out.
cdef int make_grpc_reply(HeaderBlock response, int status, const char *reason) noexcept nogil
