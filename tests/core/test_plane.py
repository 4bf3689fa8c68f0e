"""What the connections of a worker share: the generator behind request ids, and the pseudonym in Via."""

import mmap
from collections import Counter

import pytest

from gateway._core import counters
from gateway._core.pathtest import PlaneProbe


def plane(node: bytes = b"isthmus") -> PlaneProbe:
    return PlaneProbe(mmap.mmap(-1, counters.block_size()), node)


def test_random_numbers_differ_within_a_worker_and_between_workers() -> None:
    one, two = plane(), plane()
    numbers = one.randoms(5000) + two.randoms(5000)
    assert len(set(numbers)) == 10_000
    one.close()
    two.close()


def test_every_bit_is_as_often_set_as_not() -> None:
    made = plane()
    numbers = made.randoms(4000)
    made.close()
    counts = Counter(bit for number in numbers for bit in range(64) if number >> bit & 1)
    assert all(1700 < counts[bit] < 2300 for bit in range(64))


@pytest.mark.parametrize("length", [0, 1, 64, 65, 500])
def test_a_pseudonym_is_cut_to_its_room(length: int) -> None:
    made = plane(b"n" * length)
    assert made.node == b"n" * min(length, 64)
    made.close()


def test_a_block_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError):
        PlaneProbe(bytearray(64), b"isthmus")
