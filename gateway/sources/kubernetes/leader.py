"""Which of several gateways writes statuses: the one that holds a Lease, and renews it in time.

A holder is believed for the length of its lease since the last change that *this* process saw: no clock of another machine counts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.sources.kubernetes.client import ApiClient, ApiError, Unreachable

log = logging.getLogger("gateway.sources.kubernetes")

DURATION_S = 15.0  # others wait so long after the last renewal that they saw
DEADLINE_S = 10.0  # a leader that could not renew for so long is none any more, well before others may be
RETRY_S = 2.0


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] = {}
    spec: _Spec = _Spec()


@dataclass(slots=True)
class Leader:
    """One candidate. `is_leading` is what counts."""

    client: ApiClient
    namespace: str
    name: str
    identity: str
    on_change: Callable[[], None] = lambda: None
    duration_s: float = DURATION_S
    deadline_s: float = DEADLINE_S
    retry_s: float = RETRY_S
    holder: str = ""
    """Who leads, as far as is known."""
    last_error: str = ""
    _is_holder: bool = False
    _renewed: float = 0.0
    _seen: _Spec = field(default_factory=_Spec)
    _seen_at: float = 0.0

    @property
    def is_leading(self) -> bool:
        """Whether this process may write at this very moment."""
        return self._is_holder and time.monotonic() - self._renewed < self.deadline_s

    async def run(self) -> None:
        """Until it is cancelled; the lease is then given back."""
        try:
            while True:
                try:
                    is_holder = await self._try()
                    self.last_error = ""
                except (ApiError, Unreachable, msgspec.MsgspecError) as error:
                    if str(error) != self.last_error:
                        log.warning("lease %s/%s: %s", self.namespace, self.name, error)
                    self.last_error = str(error)
                    is_holder = self.is_leading
                self._set(is_holder)
                await asyncio.sleep(self.retry_s * (1 + random.random() * 0.2))
        finally:
            await asyncio.shield(self._give_back())

    def _set(self, is_holder: bool) -> None:
        if is_holder != self._is_holder:
            self._is_holder = is_holder
            if is_holder:
                log.info("leads: statuses are written by this process (%s)", self.identity)
            else:
                log.info("does not lead any more; %s does", self.holder or "nobody")
            self.on_change()

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    async def _try(self) -> bool:
        """One look at the lease, taken or renewed where that is allowed."""
        begun = time.monotonic()
        try:
            lease = msgspec.json.decode(await self.client.request("GET", f"{self._path}/{self.name}"), type=_Lease)
        except ApiError as error:
            if error.status != 404:
                raise
            made = _Lease({"name": self.name, "namespace": self.namespace}, self._spec(_Spec()))
            return await self._write("POST", self._path, made, begun)
        spec = lease.spec
        if spec != self._seen:
            self._seen, self._seen_at = spec, begun
        self.holder = spec.holder_identity or ""
        # What a holder says of the length of its lease holds, but not beyond reason.
        lasts = min(float(spec.lease_duration_seconds or self.duration_s), 10 * self.duration_s)
        if self.holder not in ("", self.identity) and begun - self._seen_at < lasts:
            return False
        return await self._write("PUT", f"{self._path}/{self.name}", _Lease(lease.metadata, self._spec(spec)), begun)

    def _spec(self, before: _Spec) -> _Spec:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = before.holder_identity == self.identity
        return _Spec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, int(self.duration_s)),
            acquire_time=before.acquire_time if is_ours else now,
            renew_time=now,
            lease_transitions=(before.lease_transitions or 0) + (0 if is_ours or before.acquire_time is None else 1),
        )

    async def _write(self, method: str, path: str, lease: _Lease, begun: float) -> bool:
        plain = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": lease.metadata, "spec": lease.spec}
        try:
            # The version in the metadata makes the server refuse this when somebody else was faster.
            await self.client.request(method, path, body=msgspec.json.encode(plain))
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        self._renewed, self._seen, self._seen_at = begun, lease.spec, begun
        self.holder = self.identity
        return True

    async def _give_back(self) -> None:
        if not self.is_leading:
            return
        self._is_holder = False
        try:
            lease = msgspec.json.decode(await self.client.request("GET", f"{self._path}/{self.name}"), type=_Lease)
            if lease.spec.holder_identity == self.identity:
                free = msgspec.structs.replace(lease.spec, holder_identity="", lease_duration_seconds=1)
                await self._write("PUT", f"{self._path}/{self.name}", _Lease(lease.metadata, free), 0.0)
                log.info("the lease %s/%s is given back", self.namespace, self.name)
        except (ApiError, Unreachable, msgspec.MsgspecError) as error:
            log.warning("the lease %s/%s could not be given back: %s", self.namespace, self.name, error)
