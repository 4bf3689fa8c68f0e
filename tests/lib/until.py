"""Waiting for a fact, with a deadline. The one place where tests may sleep."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], T], seconds: float = 30) -> T:
    """Answers what the condition answers once it is true; AssertionError when it takes longer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        await asyncio.sleep(0.01)
    return answer


def wait_until(condition: Callable[[], T], seconds: float = 30) -> T:
    """The same without a loop."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.01)
    return answer
