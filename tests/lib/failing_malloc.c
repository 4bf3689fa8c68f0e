/* Preloaded into a test's child: memory runs out for the core alone, at the allocation that the test names.
 *
 * An allocation is the core's when the call comes from one of its shared objects; Python's own are served always. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static long counted;    /* allocations of the core since the last arm */
static long first;      /* the first one that fails; 0: none */
static long last;       /* and the last one */

void failing_malloc_arm(long from, long to) {
    counted = 0;
    first = from;
    last = to;
}

long failing_malloc_counted(void) { return counted; }

static int fails(void *caller) {
    Dl_info where;
    if (first == 0 || dladdr(caller, &where) == 0 || where.dli_fname == NULL || strstr(where.dli_fname, "/_core/") == NULL)
        return 0;
    counted++;
    if (counted < first || counted > last)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n); }
