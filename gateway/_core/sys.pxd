# sys.pxd - level 0: the system calls of the path, declared once. Linux only. Owns: nothing. Called by: buf and levels 5 to 10.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef extern from "<sys/types.h>" nogil:
    ctypedef long ssize_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_storage:
        uint16_t ss_family
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct so_linger "linger":
        int l_onoff
        int l_linger
    int AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    int SOL_SOCKET, SO_ERROR, SO_LINGER, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_MORE, SHUT_WR
    int socket(int, int, int)
    int connect(int, const sockaddr *, socklen_t)
    int accept4(int, sockaddr *, socklen_t *, int)
    int getsockopt(int, int, int, void *, socklen_t *)
    int setsockopt(int, int, int, const void *, socklen_t)
    int getpeername(int, sockaddr *, socklen_t *)
    int getsockname(int, sockaddr *, socklen_t *)
    int shutdown(int, int)
    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)
    ssize_t sendmsg(int, const msghdr *, int)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    int IPPROTO_TCP
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int, const char *, void *)
    const char *inet_ntop(int, const void *, char *, socklen_t)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        uint16_t sun_family
        char sun_path[108]

cdef extern from "<unistd.h>" nogil:
    int close(int)
    ssize_t sys_read "read"(int, void *, size_t)
    ssize_t sys_write "write"(int, const void *, size_t)

cdef extern from "<fcntl.h>" nogil:
    int O_NONBLOCK, O_CLOEXEC, F_SETPIPE_SZ, SPLICE_F_MOVE, SPLICE_F_NONBLOCK
    int pipe2(int *, int)
    int fcntl(int, int, ...)
    ssize_t splice(int, void *, int, void *, size_t, unsigned int)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLET
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int, timespec *)

cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)

cdef inline uint64_t clock_us(int clock) noexcept nogil:
    cdef timespec t
    clock_gettime(clock, &t)
    return <uint64_t> t.tv_sec * 1000000 + <uint64_t> (t.tv_nsec // 1000)
