"""What perf and callgrind print is read rightly."""

import pytest

from perf.profiler import busiest, readable, split, totals


def test_the_kernel_share_is_told_from_user_space() -> None:
    lines = ["    75.81%  [kernel.kallsyms]", "    20.18%  engine.cpython-311.so", "     3.95%  libc.so.6", "     0.05%  [vdso]"]
    user, kernel = split(lines)
    assert round(user, 2) == 24.18 and kernel == 75.81


def test_the_worker_is_told_from_a_supervisor_that_worked_hard_before() -> None:
    """The supervisor has used more in all, reading its configuration; the worker used more while it served."""
    supervisor, worker, new = 10, 11, 12
    assert busiest({supervisor: 900, worker: 100}, {supervisor: 901, worker: 300, new: 50}) == worker


def test_instructions_of_a_dump() -> None:
    report = "Ir                  file:function\n178,904,001 (100.0%)  PROGRAM TOTALS\n  8,000 ( 8.04%)  ???:parse\n"
    assert totals(report) == 178904001
    assert totals("1,234  PROGRAM TOTALS\n") == 1234
    with pytest.raises(ValueError, match="counted nothing"):
        totals("no dump at all")


def test_names_in_a_dump_are_shortened_to_what_tells_them_apart() -> None:
    ours = "???:__pyx_f_7gateway_5_core_8h1_parse_parse_lines [/x/gateway/_core/h1_parse.cpython-311-x86_64-linux-gnu.so]"
    assert readable(ours) == "h1_parse_parse_lines  h1_parse"
    assert readable("./string/../x86_64/memchr-avx2.S:__memchr_avx2 [/usr/lib/libc.so.6]") == "__memchr_avx2  libc"
    assert readable("???:ngx_http_parse_header_line") == "ngx_http_parse_header_line"
