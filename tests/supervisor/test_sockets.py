"""Listening sockets: one for each slot, addresses of every kind, and errors that people understand."""

import contextlib
import select
import socket

import pytest

from gateway.supervisor.sockets import BindError, Listener, Listeners, backlog, join_address, split_address


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def accept_any(listener: Listener) -> socket.socket:
    ready, _, _ = select.select(listener.sockets, [], [], 5)
    return ready[0].accept()[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        (":80", ("", 80)),
        ("*:80", ("", 80)),
        ("[::]:0", ("::", 0)),
    ],
)
def test_addresses_split_and_join(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected
    if expected[0]:
        assert join_address(*expected) == text


@pytest.mark.parametrize("text", ["127.0.0.1", "::1:80", "a:b", "a:70000", "a:-1", "a:"])
def test_what_is_no_address_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        split_address(text)


def test_every_slot_has_its_own_queue_on_the_same_port() -> None:
    listener = Listener(1, "127.0.0.1:0", 3)
    try:
        ports = {sock.getsockname()[1] for sock in listener.sockets}
        assert len(listener.sockets) == 3 and len(ports) == 1
        assert listener.bound == f"127.0.0.1:{ports.pop()}"
        for sock in listener.sockets:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
            assert not sock.getblocking() and not sock.get_inheritable()
    finally:
        listener.close()


def test_a_connection_made_while_nobody_accepts_waits_in_the_queue() -> None:
    listener = Listener(1, "127.0.0.1:0", 2)
    try:
        with socket.create_connection(split_address(listener.bound), timeout=5) as client:
            client.sendall(b"early")
            accepted = accept_any(listener)
            assert accepted.recv(10) == b"early"
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            accepted.close()
    finally:
        listener.close()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("address", ["[::]:0", "*:0"])
def test_any_address_takes_both_families(address: str) -> None:
    listener = Listener(1, address, 1)
    try:
        port = split_address(listener.bound)[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                accept_any(listener).close()
    finally:
        listener.close()


def test_a_port_that_another_process_holds_is_a_clear_error_and_leaves_nothing() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = join_address(*other.getsockname())
        with pytest.raises(BindError, match=f"cannot listen on {address}: the address is in use by another process"):
            Listener(1, address, 2)


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(BindError, match="this machine does not have that address"):
        Listener(1, "203.0.113.7:0", 1)


def test_a_port_shared_with_a_predecessor_is_taken_and_noted() -> None:
    first = Listener(1, "127.0.0.1:0", 1)
    second = Listener(1, first.bound, 1)
    assert not first.is_shared and second.is_shared
    first.close()
    second.close()


def test_apply_touches_only_what_changed() -> None:
    listeners = Listeners(2)
    try:
        added, removed, errors = listeners.apply({1: "127.0.0.1:0", 2: "127.0.0.1:0"})
        assert sorted(listener.bind_id for listener in added) == [1, 2] and not removed and not errors
        kept = listeners.by_id[1].sockets[0]
        added, removed, errors = listeners.apply({1: "127.0.0.1:0", 3: "127.0.0.1:0", 4: "203.0.113.7:0"})
        assert [listener.bind_id for listener in added] == [3]
        assert removed == [2]
        assert [error.address for error in errors] == ["203.0.113.7:0"]
        assert listeners.by_id[1].sockets[0] is kept and kept.fileno() > 0
    finally:
        listeners.close()


def test_the_backlog_is_what_the_kernel_allows() -> None:
    assert backlog() >= 128
