"""Known field names, and which of them are hop-by-hop (item 34) or can never be nominated (item 35)."""

import re
from pathlib import Path

from gateway._core import tokens
from gateway._core.selftest import token, token_facts

HEADER = Path(tokens.__file__).with_name("tokens.pxd").read_text()


def test_the_table_follows_the_header() -> None:
    members = re.findall(r"^    T_(\w+)", HEADER, re.M)
    assert members[0] == "OTHER"
    assert [name.replace(b"-", b"_").upper().decode() for name in tokens.NAMES[1:]] == members[1:]
    assert len(tokens.NAMES) <= 64


def test_every_known_name_is_found_and_nothing_near_it() -> None:
    for number, name in enumerate(tokens.NAMES):
        if not name:
            continue
        assert token(name) == number
        for near in (name[:-1], name + b"x", name[1:], name.upper(), b"x" + name, name[:-1] + b"\x00"):
            assert token(near) in (0, tokens.NAMES.index(near) if near in tokens.NAMES else 0), near


def test_names_that_are_not_ours() -> None:
    for name in (b"", b"x", b"te-", b"accept-language", b"x-forwarded", b"a" * 30, b"a" * 70_000, b"\xff" * 4):
        assert token(name) == 0


def test_item_34_hop_by_hop_names() -> None:
    hop = {name for number, name in enumerate(tokens.NAMES) if token_facts(number)[0]}
    assert hop == {
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"http2-settings",
    }  # fmt: skip


def test_item_35_unnominable_names() -> None:
    kept = {name for number, name in enumerate(tokens.NAMES) if token_facts(number)[1]}
    assert kept >= {
        b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"x-forwarded-for", b"x-forwarded-proto",
        b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-client-cert", b"x-real-ip", b"forwarded",
        b"via", b"x-request-id", b"content-type", b"traceparent",
    }  # fmt: skip
    assert not kept & {b"", b"keep-alive", b"te", b"upgrade", b"accept", b"user-agent"}
    assert token_facts(200) == (False, False)
