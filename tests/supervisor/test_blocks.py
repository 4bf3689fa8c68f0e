"""Memory files: what is sealed stays as it is."""

import errno
import fcntl
import mmap
import os

import pytest

from gateway.supervisor.blocks import SEALS_ALL, Block, sealed_file


def test_a_sealed_file_holds_the_bytes_and_takes_no_others() -> None:
    blob = os.urandom(300_000)
    fd = sealed_file(blob)
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS_ALL
        assert os.pread(fd, len(blob), 0) == blob
        with pytest.raises(OSError) as refused:
            os.pwrite(fd, b"x", 0)
        assert refused.value.errno == errno.EPERM
        with pytest.raises(OSError):
            os.ftruncate(fd, 10)
    finally:
        os.close(fd)


def test_a_block_is_zero_shared_and_of_fixed_size() -> None:
    block = Block(0, 8192)
    with mmap.mmap(block.fd, 8192) as other:
        assert bytes(other[:8192]) == bytes(8192)
        other[100:104] = b"fact"
        assert block.map[100:104] == b"fact"
    with pytest.raises(OSError):
        os.ftruncate(block.fd, 0)
    block.close()
