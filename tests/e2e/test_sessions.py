"""Sessions that stay with one endpoint (sessionPersistence): by a cookie or a header, over workers, weights, changes and failures.

Each endpoint says its name.
"""

import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from data_plane import DataPlane, origin_config
from faulty import Message, Origin, Wire, client, polite
from gateway_process import Gateway, request
from pki import Authority, write_pair

COOKIE = {"sessionName": "shop"}
HEADER = {"sessionName": "X-Session", "type": "Header"}
HOUR = 3600
PATIENCE = 30.0


@contextmanager
def origins(names: str) -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Origin(polite, name)) for name in names]


def config_of(sites: Sequence[Origin], session: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    calm = {"outlierDetection": {"consecutiveErrors": 0}, "loadBalancing": {"policy": "RoundRobin"}}
    config = origin_config(*(site.port for site in sites), cluster={**calm, **cluster})
    config["routes"][0]["rules"][0]["sessionPersistence"] = COOKIE if session is None else session
    return config


def cookies(told: Message) -> list[str]:
    return [value for name, value in told.fields if name == "set-cookie"]


def token_of(told: Message, name: str = "shop") -> str:
    (cookie,) = cookies(told)
    assert cookie.startswith(f"{name}=")
    return cookie.partition("=")[2].partition(";")[0]


def seen_by(wire: Wire, token: str, n: int = 12) -> str:
    """Who answers, without another session being begun."""
    seen = ""
    for _ in range(n):
        told = wire.ask(cookie=f"a=b; shop={token}; c=d")
        assert not cookies(told)
        seen += told.body.decode()
    return seen


def test_a_session_stays_where_it_began() -> None:
    with origins("abc") as sites, DataPlane(config_of(sites)) as plane, client(plane.port) as wire:
        begun: dict[str, str] = {}
        for _ in range(12):
            told = wire.ask()
            (cookie,) = cookies(told)
            assert re.fullmatch(r"shop=[0-9a-f]{32}; Path=/; HttpOnly", cookie)
            begun[told.body.decode()] = token_of(told)
        assert set(begun) == set("abc")
        for name, token in begun.items():
            assert seen_by(wire, token) == name * 12


@pytest.mark.parametrize("policy", ["LeastRequest", "Random", "ConsistentHash"])
def test_whatever_the_policy_is(policy: str) -> None:
    more = {"key": "clientAddress"} if policy == "ConsistentHash" else {}
    balancing = {"policy": policy, **more}
    with origins("abcd") as sites:
        # a session that began when nothing was hashed
        with DataPlane(config_of(sites)) as plane, client(plane.port) as wire:
            begun = {told.body.decode(): token_of(told) for told in (wire.ask() for _ in range(4))}
        with DataPlane(config_of(sites, loadBalancing=balancing)) as plane, client(plane.port) as wire:
            for name, token in begun.items():
                assert seen_by(wire, token) == name * 12


@pytest.mark.parametrize(
    "token",
    ["", "x" * 32, "0" * 32, "A" * 32, "0" * 31, "0" * 33, "0" * 40, "0" * 5000],
    ids=["empty", "letters", "nobody", "capitals", "short", "long", "born", "huge"],
)
def test_what_is_no_token_is_a_new_session(token: str) -> None:
    with origins("ab") as sites, DataPlane(config_of(sites)) as plane, client(plane.port) as wire:
        seen: Counter[bytes] = Counter()
        for _ in range(10):
            told = wire.ask(cookie=f"shop={token}")
            assert len(token_of(told)) == 32
            seen[told.body] += 1
        assert seen == {b"a": 5, b"b": 5}


def test_a_header_is_one_too() -> None:
    with origins("abc") as sites, DataPlane(config_of(sites, HEADER)) as plane, client(plane.port) as wire:
        told = wire.ask()
        (token,) = [value for name, value in told.fields if name == "x-session"]
        assert re.fullmatch("[0-9a-f]{32}", token) and not cookies(told)
        again = [wire.ask(X_Session=token) for _ in range(9)]
        assert {each.body for each in again} == {told.body}
        assert not [name for each in again for name, _ in each.fields if name == "x-session"]


def test_a_session_ends_at_its_age() -> None:
    """Told by its token: nobody keeps a list."""
    session = {**COOKIE, "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}
    with origins("abc") as sites, DataPlane(config_of(sites, session)) as plane, client(plane.port) as wire:
        told = wire.ask()
        (cookie,) = cookies(told)
        assert cookie.endswith("; Path=/; HttpOnly; Max-Age=3600")
        token = token_of(told)
        birth = int(token[32:], 16)
        assert len(token) == 40 and abs(time.time() - birth) < 60
        assert seen_by(wire, token) == told.body.decode() * 12
        for other, is_good in ((birth - HOUR + 120, True), (birth - HOUR - 1, False), (birth + 600, False)):
            again = wire.ask(cookie=f"shop={token[:32]}{other:08x}")
            assert bool(cookies(again)) is not is_good and (again.body == told.body or not is_good)
        assert cookies(wire.ask(cookie=f"shop={token[:32]}")), "without its birth it has none"


def test_a_session_lives_as_long_as_the_browser_where_nothing_else_is_said() -> None:
    session = {**COOKIE, "absoluteTimeout": "1h"}
    with origins("ab") as sites, DataPlane(config_of(sites, session)) as plane, client(plane.port) as wire:
        (cookie,) = cookies(wire.ask())
        assert re.fullmatch(r"shop=[0-9a-f]{40}; Path=/; HttpOnly", cookie)


def test_a_session_whose_endpoint_goes_begins_anew_elsewhere() -> None:
    with origins("abc") as sites, DataPlane(config_of(sites)) as plane, client(plane.port) as wire:
        begun = {told.body.decode(): token_of(told) for told in (wire.ask() for _ in range(3))}
        # Of an endpoint that is not in the configuration any more, and of one that is, and refuses connections.
        plane.load(config_of(sites[1:]))
        told = wire.ask(cookie=f"shop={begun['a']}")
        assert told.body in (b"b", b"c") and seen_by(wire, token_of(told)) == told.body.decode() * 12
        sites[1].close()
        told = wire.ask(cookie=f"shop={begun['b']}")
        assert told.status == 200 and told.body == b"c" and seen_by(wire, token_of(told)) == "c" * 12
        plane.load(config_of([sites[0], sites[2]]))
        assert seen_by(wire, begun["a"]) == "a" * 12, "who comes back finds its sessions again"


def test_a_session_stays_with_its_backend_whatever_the_weights() -> None:
    def split(stable: int, canary: int) -> dict[str, Any]:
        config = config_of([sites[0]])
        refs = [{"name": "stable", "weight": stable}, {"name": "canary", "weight": canary}]
        config["routes"][0]["rules"][0]["backendRefs"] = refs
        ends = {"stable": sites[:2], "canary": sites[2:]}
        config["clusters"] = [{"name": name, "endpoints": [f"127.0.0.1:{site.port}" for site in ends[name]]} for name in ends]
        return config

    with origins("abcd") as sites, DataPlane(split(1, 1)) as plane, client(plane.port) as wire:
        begun = {told.body.decode(): token_of(told) for told in (wire.ask() for _ in range(60))}
        assert set(begun) == set("abcd")
        plane.load(split(99, 1))
        for name, token in begun.items():
            assert seen_by(wire, token) == name * 12
        plane.load(split(1, 0))
        for name in "cd":
            told = wire.ask(cookie=f"shop={begun[name]}")
            assert told.body in (b"a", b"b") and cookies(told), "who takes nothing keeps no sessions either"


def test_sessions_are_the_same_for_all_workers_and_the_cookie_of_tls_is_secure(tmp_path: Path) -> None:
    authority = Authority()
    write_pair(tmp_path, "web", authority.issue("127.0.0.2"))
    with origins("abcd") as sites:
        config = {
            "accessLog": {"format": "off"},
            "listeners": [
                {"name": "web", "address": "127.0.0.1:0"},
                {
                    "name": "safe", "address": "127.0.0.2:0", "protocol": "HTTPS",
                    "tls": {"certificates": [{"cert": "web.crt", "key": "web.key"}]},
                },
            ],
            "routes": [{"name": "all", "rules": [{"backendRefs": [{"name": "sites"}], "sessionPersistence": {}}]}],
            "clusters": [{"name": "sites", "endpoints": [f"127.0.0.1:{site.port}" for site in sites]}],
        }  # fmt: skip
        (tmp_path / "gateway.yaml").write_text(json.dumps(config))
        with Gateway(tmp_path / "gateway.yaml", workers=2) as gateway:
            _, fields, body = request(gateway.address("web"))
            found = re.fullmatch(r"(isthmus-[0-9a-f]{10}=[0-9a-f]{32}); Path=/; HttpOnly", fields["set-cookie"])
            assert found
            for _ in range(20):
                _, fields, again = request(gateway.address("web"), headers={"Cookie": found[1]})
                assert again == body and "set-cookie" not in fields
            host, _, port = gateway.address("safe").rpartition(":")
            context = ssl.create_default_context(cadata=authority.pem.decode())
            plain = socket.create_connection((host, int(port)), timeout=PATIENCE)
            with Wire(context.wrap_socket(plain, server_hostname=host)) as wire:
                (cookie,) = cookies(wire.ask())
                assert cookie.endswith("; Path=/; HttpOnly; Secure")
