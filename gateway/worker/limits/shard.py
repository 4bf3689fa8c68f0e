"""One server of the store: a connection that carries many calls at once, a breaker, and the task that mends both.

A call is answered, or fails with a reason, exactly once. Nothing here waits on a request's behalf: calls that come while a
connection is being made are kept until it stands or fails, and each call's deadline is looked at by a timer.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from gateway.worker.limits.breaker import Breaker
from gateway.worker.limits.facts import Tally
from gateway.worker.limits.script import CHARGE_ALL, GCRA, SCRIPT, SHA, Key, arguments, parse_answer

log = logging.getLogger("gateway.worker.limits")

TIMEOUT, OPEN, UNREACHABLE, KEY, FULL = 1, 2, 3, 4, 5
"""Reasons of a failure, as the engine counts them."""

MOST_CALLS = 4096        # that wait for an answer; who comes then is refused
CONNECT_S = 1.0
OPEN_S = 3.0             # with everything that comes before and after the connect: Sentinels, TLS, the script
MEND_EVERY_S = 1.0       # how long a breaker is open before somebody looks again
STALE_S = 3.0            # a connection that owes an answer for so long is dead, whatever TCP says
SHORT_LIFE_S = 1.0       # a connection that broke this soon is not made anew at once
FIRST_BUDGET_S = 0.01    # of a trial, at least
MOST_TRIES = 4           # of a call that a Cluster sends elsewhere


class Batch:
    """Calls that were written together: one round trip."""

    __slots__ = ("has_failed", "left", "sent_at")

    def __init__(self, sent_at: float, left: int) -> None:
        self.sent_at = sent_at
        self.left = left
        self.has_failed = False


class Call:
    """One ask on its way. `on_answer` gets the script's reply; `on_failure` one of the reasons."""

    __slots__ = ("answered", "ask", "batch", "deadline", "is_over", "tries", "words")

    def __init__(self, ask: Any, words: list[bytes], deadline: float = math.inf) -> None:
        self.ask = ask
        """None for what the shard says on its own account."""
        self.words = words
        self.deadline = deadline
        """On the loop's clock; math.inf: nobody waits."""
        self.is_over = False
        """Whether its failure has been told; an answer that comes yet is late."""
        self.tries = 0
        self.batch: Batch | None = None
        """Since it has been written."""
        self.answered: asyncio.Future[Any] | None = None


def pack(words: list[bytes]) -> bytes:
    """A command as the server reads it."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


# What scripts say that may not do something, and servers whose password was not given: errors without a code of their own.
_MAY_NOT = re.compile("ACL failure|user executing the script can't|unauthenticated")


def kind_of(error: BaseException) -> str:
    """The word under which an error is counted."""
    if _MAY_NOT.search(str(error)):
        return "denied"
    for kind, classes in (
        ("readonly", ReadOnlyError),
        ("loading", BusyLoadingError),
        ("oom", OutOfMemoryError),
        ("denied", (AuthenticationError, NoPermissionError)),
        ("cluster", (AskError, ClusterDownError, MasterDownError, TryAgainError)),
        ("connect", (OSError, RedisError, TimeoutError)),
    ):
        if isinstance(error, classes):
            return kind
    return "other"


_HOPELESS = (ReadOnlyError, OutOfMemoryError, NoPermissionError, ClusterDownError, MasterDownError, TryAgainError)
"""Replies that say something of the server, and not of one key."""


class Shard:
    """Calls go in by `send`; what becomes of them goes to the functions given at the beginning."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[AbstractConnection]],
        tally: Tally,
        on_answer: Callable[[Call, Any], None],
        on_failure: Callable[[Call, int], None],
        on_moved: Callable[[Call, AskError], bool] = lambda call, error: False,
    ) -> None:
        """connect answers an open connection, or raises RedisError, OSError or TimeoutError. on_moved says whether a call that a
        Cluster sends elsewhere has been taken there."""
        self.name = name
        self.breaker = Breaker()
        self._connect = connect
        self._tally = tally
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._on_moved = on_moved
        self._loop = asyncio.get_running_loop()
        self._connection: AbstractConnection | None = None
        self._waiting: collections.deque[Call] = collections.deque()
        self._held: list[Call] = []
        self._outbox: list[bytes] = []
        self._sending: asyncio.Event = asyncio.Event()
        self._loads: set[Call] = set()
        self._born = 0.0
        self._budget = FIRST_BUDGET_S
        self._timer: asyncio.Handle | None = None
        self._due = math.inf
        self._wish = asyncio.Event()
        self._said = ""
        # 16 bytes that no engine's hash will be, and no other worker's probe.
        self._probe_key = Key(b"", os.urandom(16), GCRA, 1000, 1_000_000, 1000, 1)
        self._task = self._loop.create_task(self._mend(), name=f"limits {name}")
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    # calls

    def send(self, calls: list[Call]) -> None:
        """Each is answered or fails, perhaps at once."""
        if self.breaker.is_open:
            # What nobody waits for, a lease that comes back, may still reach a server that answers late.
            for call in calls:
                if call.deadline < math.inf or self._connection is None:
                    self._fail(call, OPEN)
            calls = [call for call in calls if not call.is_over]
        room = MOST_CALLS - len(self._waiting) - len(self._held)
        for call in calls[max(0, room) :]:
            self._tally.error("full")
            self._fail(call, FULL)
        calls = calls[: max(0, room)]
        if not calls:
            return
        soonest = min(call.deadline for call in calls)
        if soonest < math.inf:
            self._budget = max(FIRST_BUDGET_S, soonest - self._loop.time())
            self._watch(soonest)
        if self._connection is None:
            self._held += calls
            return
        self._write(calls)

    def _write(self, calls: list[Call], lead: bytes = b"") -> None:
        """lead: what stands before each of them."""
        batch = Batch(time.monotonic(), len(calls))
        for call in calls:
            call.batch = batch
            call.tries += 1
            self._waiting.append(call)
            self._outbox += (lead, pack([b"EVALSHA", SHA, *call.words]))
        self._tally.asks += len(calls)
        self._sending.set()

    def send_asking(self, call: Call) -> None:
        """A call for a slot that is moving here."""
        if self._connection is None:
            self._fail(call, UNREACHABLE)
            return
        marker = Call(None, [])
        marker.batch = Batch(time.monotonic(), 1)
        self._waiting.append(marker)
        self._write([call], pack([b"ASKING"]))

    def _fail(self, call: Call, reason: int) -> None:
        if not call.is_over:
            call.is_over = True
            if call.answered is not None and not call.answered.done():
                call.answered.set_result(ConnectionResetError("the connection broke"))
            if call.ask is not None:
                self._on_failure(call, reason)

    # deadlines

    def _watch(self, at: float) -> None:
        """One timer for all calls, set when it is needed and left alone when answers are in time."""
        # When it is due is kept here: what uvloop answers for a time that is almost now is no TimerHandle and cannot tell.
        if self._due > at:
            if self._timer is not None:
                self._timer.cancel()
            self._due = at
            self._timer = self._loop.call_at(at, self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        self._due = math.inf
        now = self._loop.time()
        late = [call for call in (*self._waiting, *self._held) if call.deadline <= now and not call.is_over]
        self._held = [call for call in self._held if call.deadline > now]
        errors = 0
        for call in late:
            self._fail(call, TIMEOUT)
            errors += self._is_first_of_its_batch(call)
        for _ in range(errors):
            self._tally.error("timeout")
            self._count_error()
        left = min((call.deadline for call in (*self._waiting, *self._held) if not call.is_over), default=math.inf)
        if left < math.inf:
            self._watch(left)

    # the breaker

    def _count_error(self) -> None:
        if self.breaker.error():
            self._on_opened("it does not answer in time, or with errors")

    @staticmethod
    def _is_first_of_its_batch(call: Call) -> bool:
        """Whether this failure is the first of a round trip: one is one error, however many calls it carries."""
        if call.batch is None:
            return True
        is_first, call.batch.has_failed = not call.batch.has_failed, True
        return is_first

    def _on_opened(self, why: str) -> None:
        if why != self._said:
            self._said = why
            log.warning("the store of rate limits, %s, is not asked for a while: %s", self.name, why)
        for call in (*self._waiting, *self._held):
            self._fail(call, OPEN)
        self._held.clear()
        self._wish.set()

    # mending

    async def _mend(self) -> None:
        """Keeps a connection open; while the breaker is, tries it out once a second with a charge of its own."""
        while True:
            self._wish.clear()
            try:
                if self._connection is None:
                    await self._open()
                if self.breaker.is_open:
                    await self._probe()
                    self.breaker.close()
                    self._said = ""
                    log.info("the store of rate limits, %s, answers again", self.name)
                held, self._held = self._held, []
                if held:
                    self._write(held)
                await self._wish.wait()
                if self.breaker.is_open:
                    await asyncio.sleep(MEND_EVERY_S)
                elif self._loop.time() - self._born < SHORT_LIFE_S:
                    raise ConnectionResetError("the connection broke as soon as it stood")
            except (OSError, RedisError, TimeoutError) as error:
                self._tally.error(kind_of(error))
                self.breaker.trip()
                self._on_opened(str(error) or type(error).__name__)
                await asyncio.sleep(MEND_EVERY_S)

    async def _open(self) -> None:
        async with asyncio.timeout(OPEN_S):
            connection = await self._connect()
            try:
                # Brings the script, and shows that this user may do here what it does.
                # In a Cluster the key is perhaps another node's; one that says so is well, and gets the script with the first call.
                with contextlib.suppress(AskError):
                    for words in ([b"EVAL", SCRIPT], [b"EVALSHA", SHA]):
                        trial = pack([*words, *arguments(1, CHARGE_ALL, (self._probe_key,))])
                        await connection.send_packed_command(trial, check_health=False)
                        if parse_answer(await connection.read_response(), 1) is None:
                            raise RedisError("the script was answered by something else")
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        self._connection = connection
        self._born = self._loop.time()
        self._outbox.clear()
        for work in (self._read(connection), self._pump(connection)):
            task = self._loop.create_task(work, name=f"limits {self.name}")
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _probe(self) -> None:
        """A charge on a key of its own, within the time that a request would have had. Raises what _mend catches."""
        oldest = self._waiting[0].batch if self._waiting else None
        if oldest is not None and time.monotonic() - oldest.sent_at > STALE_S:
            await self._drop(TimeoutError("an answer is owed for too long"))
            await self._open()
        call = Call(None, arguments(1, CHARGE_ALL, (self._probe_key,)))
        call.answered = self._loop.create_future()
        self._write([call])
        try:
            async with asyncio.timeout(self._budget):
                reply = await call.answered
        except TimeoutError:
            raise TimeoutError("no answer in time") from None
        if isinstance(reply, ReadOnlyError):
            await self._drop(reply)
        if isinstance(reply, Exception) and not isinstance(reply, (AskError, NoScriptError)):
            raise reply

    # the connection

    async def _pump(self, connection: AbstractConnection) -> None:
        """Writes what has come together since the loop's last turn."""
        with contextlib.suppress(OSError, RedisError):
            while self._connection is connection:
                await self._sending.wait()
                self._sending.clear()
                data = b"".join(self._outbox)
                self._outbox.clear()
                if data:
                    await connection.send_packed_command(data, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        error: Exception
        try:
            while True:
                try:
                    reply = await connection.read_response(disable_decoding=True)
                except ResponseError as said:
                    reply = said
                self._on_reply(self._waiting.popleft(), reply)
        except (OSError, RedisError) as broken:
            error = broken
        except IndexError:
            error = ConnectionResetError("an answer came that nobody has asked for")
        if self._connection is connection:
            await self._drop(error)
            self._wish.set()

    def _on_reply(self, call: Call, reply: Any) -> None:
        batch = call.batch
        assert batch is not None
        batch.left -= 1
        if call.ask is None:
            if call.answered is not None and not call.answered.done():
                call.answered.set_result(reply)
            return
        if batch.left == 0:
            self._tally.round_trip(time.monotonic() - batch.sent_at)
        self._loads.discard(call)
        if isinstance(reply, Exception):
            self._on_error(call, reply)
        else:
            self._on_answer(call, reply)

    def _on_error(self, call: Call, error: Exception) -> None:
        if isinstance(error, NoScriptError) and call.tries < MOST_TRIES:
            self._load(call)
        elif isinstance(error, AskError) and call.tries < MOST_TRIES and self._on_moved(call, error):
            return
        elif isinstance(error, (*_HOPELESS, AskError, NoScriptError)) or kind_of(error) == "denied":
            self._fail(call, UNREACHABLE)
            if self._is_first_of_its_batch(call):
                self._tally.error(kind_of(error))
                self._count_error()
                if isinstance(error, ReadOnlyError) and self._connection is not None:
                    # The primary is elsewhere now: the name, or the Sentinels, will say where.
                    self._start_over(error)
        else:
            self._tally.error("key")
            if str(error) != self._said:
                self._said = str(error)
                log.warning("the store of rate limits, %s, refuses one key: %s", self.name, error)
            self._fail(call, KEY)

    def _load(self, call: Call) -> None:
        """The server has lost its scripts. The first call brings it, the others follow on the same connection."""
        if self._loads or self._connection is None:
            self._write([call])
            return
        self._loads.add(call)
        call.batch = Batch(time.monotonic(), 1)
        call.tries += 1
        self._waiting.append(call)
        self._outbox.append(pack([b"EVAL", SCRIPT, *call.words]))
        self._sending.set()

    def _start_over(self, why: Exception) -> None:
        task = self._loop.create_task(self._drop(why))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        task.add_done_callback(lambda task: self._wish.set())

    async def _drop(self, why: Exception) -> None:
        """Closes the connection; calls on their way fail. An idle one that ends, as servers do after a while, is no error."""
        connection, self._connection = self._connection, None
        waiting = [call for call in self._waiting if not call.is_over]
        self._waiting.clear()
        self._outbox.clear()
        self._loads.clear()
        self._sending.set()
        for call in waiting:
            self._fail(call, UNREACHABLE)
        if waiting:
            self._tally.error(kind_of(why))
            self._count_error()
        if connection is not None:
            with contextlib.suppress(OSError, RedisError, TimeoutError):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Every call that is open fails."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [self._task, *self._pumps]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._drop(ConnectionResetError("closed"))
        for call in self._held:
            self._fail(call, UNREACHABLE)
        self._held.clear()
