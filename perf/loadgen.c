/* loadgen.c - one thread of HTTP/1.1 load, closed loop or open loop.
 *
 * Owns: its connections and the table of latencies. Called by: perf/load.py, which compiles it. Prints one JSON object at the end.
 *
 * Why beside wrk: wrk has no rate control, reads in pieces of 8 KiB (a megabyte costs it more than any gateway), and closes a
 * connection before its peer does. Open loop means that request i is due at start + i / rate, whatever became of the earlier
 * ones, and that its latency counts from when it was due: a stall is seen by every request that it held up.
 *
 * A request is done when its response has been read to its end; anything else that became of it is "failed".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 16384
#define PIECE (256 * 1024)

enum state { CLOSED, IDLE, BUSY, LINGER }; /* LINGER: done, waits for the end of the stream that Connection: close announced */

struct conn {
    int fd;
    enum state state;
    int head_done, closing;
    uint32_t events;         /* what epoll was told */
    int64_t due;             /* ns, when the request in flight was due */
    const char *head;        /* request head not yet sent */
    size_t head_left, body_left;
    int status;
    uint64_t content_left;   /* of the response */
    size_t have;             /* bytes in text */
    char text[HEAD_MAX];
};

struct request { char *text; size_t n; };

static struct conn *conns;
static int *idle_ring, idle_first, idle_n, conns_n = 64;
static struct request *requests;
static size_t requests_n, request_at, body_n;
static int close_each, epoll_fd;
static struct sockaddr_in address;
static char piece[PIECE];
static uint32_t *latencies; /* us */
static size_t latencies_n, latencies_max;
static uint64_t done, failed, bad_status, reconnects, bytes_in, over;
static uint32_t worst, over_us = 5000;
static volatile sig_atomic_t stopped;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void on_signal(int number) {
    (void)number;
    stopped = 1;
}

static void watch(struct conn *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (c->events == events) return;
    if (epoll_ctl(epoll_fd, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    c->events = events;
}

static void push_idle(struct conn *c) {
    c->state = c->fd < 0 ? CLOSED : IDLE;
    idle_ring[(idle_first + idle_n++) % conns_n] = (int)(c - conns);
}

static void drop(struct conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->events = 0;
}

static void fail(struct conn *c) {
    failed++;
    drop(c);
    push_idle(c);
}

static int open_conn(struct conn *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close(c->fd);
        c->fd = -1;
        return -1;
    }
    c->events = 0;
    watch(c, EPOLLIN);
    return 0;
}

static void note(struct conn *c) {
    int64_t us = (now_ns() - c->due) / 1000;
    uint32_t t = us < 0 ? 0 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    done++;
    if (c->status < 200 || c->status > 299) bad_status++;
    if (t > worst) worst = t;
    if (t > over_us) over++;
    if (latencies_n == latencies_max) {
        latencies_max = latencies_max ? latencies_max * 2 : 65536;
        latencies = realloc(latencies, latencies_max * sizeof *latencies);
        if (!latencies) die("realloc");
    }
    latencies[latencies_n++] = t;
}

/* Sends what is left of the request; 0, or -1 when the connection broke. */
static int send_more(struct conn *c) {
    while (c->head_left || c->body_left) {
        const char *p = c->head_left ? c->head : piece;
        size_t n = c->head_left ? c->head_left : c->body_left < PIECE ? c->body_left : PIECE;
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL | (c->head_left && c->body_left ? MSG_MORE : 0));
        if (sent < 0) {
            if (errno == EAGAIN || errno == ENOTCONN) {
                watch(c, EPOLLIN | EPOLLOUT);
                return 0;
            }
            return -1;
        }
        if (c->head_left) {
            c->head += sent;
            c->head_left -= (size_t)sent;
        } else {
            c->body_left -= (size_t)sent;
        }
    }
    watch(c, EPOLLIN);
    return 0;
}

static void start(struct conn *c, int64_t due) {
    struct request *request = &requests[request_at];
    if (++request_at == requests_n) request_at = 0;
    c->due = due;
    c->state = BUSY;
    c->head = request->text;
    c->head_left = request->n;
    c->body_left = body_n;
    c->head_done = c->closing = 0;
    c->have = 0;
    if ((c->fd < 0 && open_conn(c)) || send_more(c)) fail(c);
}

/* Reads the response head in text; 1 when it is complete, 0 when not yet, -1 when it is none that this program can read. */
static int read_head(struct conn *c, size_t *end) {
    char *stop = memmem(c->text, c->have, "\r\n\r\n", 4), *line;
    int framed = 0;
    if (!stop) return c->have == HEAD_MAX ? -1 : 0;
    if (c->have < 12 || memcmp(c->text, "HTTP/1.", 7)) return -1;
    *stop = 0;
    *end = (size_t)(stop - c->text) + 4;
    c->status = atoi(c->text + 9);
    c->content_left = 0;
    for (line = strstr(c->text, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) {
            c->content_left = strtoull(line + 15, NULL, 10);
            framed = 1;
        } else if (!strncasecmp(line, "connection:", 11)) {
            const char *value = line + 11 + strspn(line + 11, " ");
            if (!strncasecmp(value, "close", 5)) c->closing = 1;
        }
    }
    if (c->status < 200) { /* an interim response: the final one follows */
        memmove(c->text, c->text + *end, c->have - *end);
        c->have -= *end;
        return read_head(c, end);
    }
    return framed || c->status == 204 || c->status == 304 ? 1 : -1;
}

static void finish(struct conn *c) {
    note(c);
    if (c->closing || close_each) {
        c->state = LINGER;
        if (close_each) return;
        reconnects++;
        drop(c);
    }
    push_idle(c);
}

static void on_readable(struct conn *c) {
    for (;;) {
        int in_head = c->state == BUSY && !c->head_done;
        char *into = in_head ? c->text + c->have : piece;
        size_t room = in_head ? HEAD_MAX - c->have : PIECE, end = 0;
        ssize_t n = recv(c->fd, into, room, in_head ? 0 : MSG_TRUNC); /* content is thrown away without being copied */
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            if (c->state == BUSY) {
                fail(c);
            } else if (c->state == LINGER) {
                drop(c);
                push_idle(c);
            } else { /* an idle connection was closed: it is in the ring already */
                reconnects++;
                drop(c);
                c->state = CLOSED;
            }
            return;
        }
        bytes_in += (uint64_t)n;
        if (c->state == IDLE) { /* bytes that nobody asked for */
            failed++;
            drop(c);
            c->state = CLOSED;
            return;
        }
        if (c->state == LINGER) continue;
        if (in_head) {
            int got;
            c->have += (size_t)n;
            got = read_head(c, &end);
            if (got < 0) {
                fail(c);
                return;
            }
            if (!got) continue;
            c->head_done = 1;
            n = (ssize_t)(c->have - end);
        }
        if ((uint64_t)n > c->content_left) {
            fail(c);
            return;
        }
        c->content_left -= (uint64_t)n;
        if (!c->content_left) {
            if (c->head_left || c->body_left) return; /* an early answer: the rest of the request still goes out */
            finish(c);
            return;
        }
        if ((size_t)n < room) return;
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t quantile(double q) {
    if (!latencies_n) return 0;
    size_t i = (size_t)(q * (double)latencies_n);
    return latencies[i < latencies_n ? i : latencies_n - 1];
}

static void add_request(const char *method, const char *host, const char *path) {
    char text[4096];
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: %s\r\n%s", method, path, host, close_each ? "Connection: close\r\n" : "");
    if (body_n) n += snprintf(text + n, sizeof text - (size_t)n, "Content-Length: %zu\r\n", body_n);
    n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
    if (n >= (int)sizeof text) die("a target is too long");
    requests = realloc(requests, (requests_n + 1) * sizeof *requests);
    if (!requests || !(requests[requests_n].text = strdup(text))) die("realloc");
    requests[requests_n++].n = (size_t)n;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'},   {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"rate", 1, 0, 'r'},   {"path", 1, 0, 'u'},
        {"method", 1, 0, 'm'}, {"body", 1, 0, 'b'},        {"close", 0, 0, 'k'},   {"targets", 1, 0, 't'}, {"over-us", 1, 0, 'o'},
        {0, 0, 0, 0}};
    const char *path = "/", *method = "GET", *targets = NULL;
    double seconds = 1, rate = 0;
    int option, port = 0, busy;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p') port = atoi(optarg);
        else if (option == 'c') conns_n = atoi(optarg);
        else if (option == 's') seconds = atof(optarg);
        else if (option == 'r') rate = atof(optarg);
        else if (option == 'u') path = optarg;
        else if (option == 'm') method = optarg;
        else if (option == 'b') body_n = (size_t)atoll(optarg);
        else if (option == 'k') close_each = 1;
        else if (option == 't') targets = optarg;
        else if (option == 'o') over_us = (uint32_t)atoi(optarg);
        else return 2;
    }
    if (port <= 0 || conns_n <= 0) {
        fprintf(stderr, "loadgen: --port and --connections must be positive\n");
        return 2;
    }
    if (targets) {
        char host[256], where[2048];
        FILE *file = fopen(targets, "r");
        if (!file) die(targets);
        while (fscanf(file, "%255s %2047s", host, where) == 2) add_request(method, host, where);
        fclose(file);
    } else {
        add_request(method, "bench.test", path);
    }
    if (!requests_n) die("no targets");

    memset(piece, 'x', sizeof piece);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default of 50 us is longer than the time between two requests */
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    conns = calloc((size_t)conns_n, sizeof *conns);
    idle_ring = calloc((size_t)conns_n, sizeof *idle_ring);
    if (!conns || !idle_ring) die("calloc");
    for (int i = 0; i < conns_n; i++) {
        conns[i].fd = -1;
        if (!close_each && open_conn(&conns[i])) die("connect");
        push_idle(&conns[i]);
    }

    int64_t begin = now_ns(), end = begin + (int64_t)(seconds * 1e9), now = begin, next = begin;
    uint64_t issued = 0;
    struct epoll_event events[256];
    for (;;) {
        now = now_ns();
        if (stopped && end > now) end = now;
        while (now < end && idle_n && (rate == 0 || next <= now)) {
            struct conn *c = &conns[idle_ring[idle_first]];
            idle_first = (idle_first + 1) % conns_n;
            idle_n--;
            start(c, rate == 0 ? now : next);
            issued++;
            if (rate > 0) next = begin + (int64_t)((double)issued * 1e9 / rate);
            if (rate == 0 && issued % (uint64_t)conns_n == 0) break; /* a port that refuses must not spin here for ever */
        }
        busy = conns_n - idle_n;
        for (int i = 0; i < conns_n && close_each && now >= end; i++)
            if (conns[i].state == LINGER) busy--;
        if (now >= end && (busy <= 0 || now > end + 2000000000)) break;
        int64_t wake = now >= end ? now + 50000000 : end;
        if (now < end && rate > 0 && idle_n && next < wake) wake = next;
        if (now < end && rate == 0 && idle_n) wake = now;
        struct timespec timeout = {(wake - now) / 1000000000, (wake - now) % 1000000000};
        if (wake <= now) timeout.tv_sec = timeout.tv_nsec = 0;
        int n = epoll_pwait2(epoll_fd, events, 256, &timeout, NULL);
        if (n < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c->fd < 0) continue;
            if ((events[i].events & EPOLLOUT) && c->state == BUSY) {
                if (send_more(c)) {
                    fail(c);
                    continue;
                }
                if (c->head_done && !c->content_left && !c->head_left && !c->body_left) {
                    finish(c);
                    continue;
                }
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
        }
    }
    for (int i = 0; i < conns_n; i++)
        if (conns[i].state == BUSY) failed++;
    qsort(latencies, latencies_n, sizeof *latencies, ascending);
    printf("{\"done\": %llu, \"failed\": %llu, \"bad_status\": %llu, \"reconnects\": %llu, \"bytes_in\": %llu, \"seconds\": %.6f, "
           "\"p50_us\": %u, \"p90_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u, \"over\": %llu}\n",
           (unsigned long long)done, (unsigned long long)failed, (unsigned long long)bad_status, (unsigned long long)reconnects,
           (unsigned long long)bytes_in, (double)(now_ns() - begin) / 1e9, quantile(0.5), quantile(0.9), quantile(0.99),
           quantile(0.999), worst, (unsigned long long)over);
    return 0;
}
