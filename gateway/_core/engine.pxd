# engine.pxd - level 11: the data plane of one worker, as its Python shell drives it. The contract is engine.pyi.
# Owns: the Plane, the clusters by id, the acceptors by bind id. Called by: worker.

from gateway._core.limit_check cimport Limiter
from gateway._core.plane cimport Plane
from gateway._core.snapshot cimport Snapshot
from gateway._core.types cimport uint64_t

cdef class Engine:
    cdef object __weakref__
    cdef Plane plane
    cdef Limiter limiter
    cdef dict clusters     # id -> pool.Cluster, those that leave included
    cdef set leaving       # ids of clusters that the snapshot does not name; closed once nothing is in flight on them
    cdef dict acceptors    # bind id -> acceptor.Acceptor
    cdef list stopped      # acceptors that accept no more and have connections; those follow the snapshots as before
    cdef dict pending      # id -> endpoints that came before the snapshot that names their cluster
    cdef dict clients      # cluster id -> tls.ClientTLS, also of clusters that no snapshot has named yet
    cdef uint64_t drain_deadline  # monotonic ms; 0: not draining

    cdef object wake       # called when something happens after a tick that asked for a long rest; None
    cdef bint resting      # the last tick did
    cdef bint stirred      # something happened since

    cdef int stir(self) except -1
    cdef int begin_answers(self) except -1
    cdef void end_answers(self) noexcept
    cdef list pollables(self)
    cdef void see_out(self) noexcept
    cdef void retire_series(self, Snapshot snapshot) noexcept
