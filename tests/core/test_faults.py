"""Faults: the table and the header name the same statuses in the same order."""

import re
from pathlib import Path

from gateway._core import faults
from gateway._core.selftest import fault_facts

HEADER = Path(faults.__file__).with_name("faults.pxd").read_text()
ROWS = re.findall(r"^    F_(\w+)(?: += 0)?(?: +# .*? (\d{3}|closed without an answer))?$", HEADER, re.M)


def test_the_table_follows_the_header() -> None:
    assert [name.lower() for name, _ in ROWS] == list(faults.NAMES)
    for (name, status), (row, number) in zip(ROWS, faults.TABLE, strict=True):
        if status.isdigit():
            assert (row.decode(), number) == (name.lower(), int(status))


def test_every_fault_has_a_name_and_a_status() -> None:
    assert len(set(faults.NAMES)) == len(faults.NAMES)
    for number, (name, status) in enumerate(faults.TABLE):
        assert fault_facts(number) == (name.decode(), status)
        assert number == 0 or 400 <= status <= 599


def test_a_number_that_is_no_fault_is_harmless() -> None:
    for number in (-1, len(faults.TABLE), 10_000):
        assert fault_facts(number) == ("unknown", 400)
