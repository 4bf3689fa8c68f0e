"""Listening sockets: one SO_REUSEPORT socket for each bound address and worker slot, made and kept by the supervisor.

A worker gets a duplicate of its own. When it dies, the accept queue lives on here and its successor gets the same socket, so that
no connection that the kernel has completed is lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


class BindError(Exception):
    """An address that cannot be listened on; the text says which and why, for people."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason


def backlog() -> int:
    """Length of the accept queue: what the kernel allows."""
    try:
        return max(128, int(SOMAXCONN.read_text()))
    except (OSError, ValueError):
        return 4096


def split_address(address: str) -> tuple[str, int]:
    """"host:port", "[v6]:port", ":port" or "*:port" as (host, port). ValueError says what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not address:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 address stands in brackets, [::1]:8080")
    return ("" if host == "*" else host), int(port)


def join_address(host: str, port: int) -> str:
    """The reverse of split_address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    """One bound socket, not yet listening. An empty host and "::" mean every address of both families."""
    if host in ("", "::"):
        family, host = (socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it: one system call less for each connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use by another process"
    if error.errno == errno.EACCES:
        return "not permitted (a port below 1024 needs CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return os.strerror(error.errno) if error.errno else str(error)


class Listener:
    """The sockets of one bound address, by worker slot."""

    def __init__(self, bind_id: int, address: str, slots: int) -> None:
        """Binds and listens for every slot, or raises BindError and leaves nothing behind."""
        self.bind_id = bind_id
        self.address = address
        self.sockets: list[socket.socket] = []
        try:
            host, port = split_address(address)
            if port and _is_held(host, port):
                self.is_shared = True
            else:
                self.is_shared = False
            for _ in range(slots):
                sock = _bind(host, port)
                self.sockets.append(sock)
                # Port 0: the kernel chose for the first, the others follow it.
                port = sock.getsockname()[1]
            # All are bound before one listens: no connection lands in a queue of a group that is still growing.
            length = backlog()
            for sock in self.sockets:
                sock.listen(length)
        except (OSError, ValueError) as error:
            self.close()
            raise BindError(address, _reason(error) if isinstance(error, OSError) else str(error)) from error
        name = self.sockets[0].getsockname()
        self.bound = join_address(name[0], name[1])

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


def _is_held(host: str, port: int) -> bool:
    """Whether someone else of this user already shares the port by SO_REUSEPORT (a gateway that is being replaced, usually)."""
    with contextlib.suppress(OSError):
        v6 = host in ("", "::") and _has_ipv6()
        family = socket.AF_INET6 if v6 or ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if v6 else 1)
            try:
                probe.bind((host or ("::" if v6 else "0.0.0.0"), port))
            except OSError as error:
                return error.errno == errno.EADDRINUSE
    return False


class Listeners:
    """Every bound address of the gateway. `apply` brings it to a wanted set; what stays is not touched."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.by_id: dict[int, Listener] = {}

    def apply(self, wanted: Mapping[int, str]) -> tuple[list[Listener], list[int], list[BindError]]:
        """wanted: bind id -> address. Answers the listeners added, the ids removed (now closed here), and what failed."""
        removed = [bind_id for bind_id, listener in self.by_id.items() if wanted.get(bind_id) != listener.address]
        for bind_id in removed:
            self.by_id.pop(bind_id).close()
        added: list[Listener] = []
        errors: list[BindError] = []
        for bind_id, address in sorted(wanted.items(), key=lambda item: item[1]):
            if bind_id in self.by_id:
                continue
            try:
                listener = Listener(bind_id, address, self.slots)
            except BindError as error:
                errors.append(error)
                continue
            self.by_id[bind_id] = listener
            added.append(listener)
        return added, removed, errors

    def close(self) -> None:
        for listener in self.by_id.values():
            listener.close()
        self.by_id.clear()
