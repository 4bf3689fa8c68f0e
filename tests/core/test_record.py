"""One finished exchange as one line of the access log."""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from gateway._core.record import RecordProbe

KEYS = [
    "time", "duration_ms", "upstream_ms", "method", "scheme", "host", "path", "query", "protocol", "status", "bytes_in",
    "bytes_out", "flags", "listener", "route", "cluster", "upstream", "client", "attempts", "request_id",
    "user_agent", "referer", "detail",
]  # fmt: skip
WALL = 1787315696_123456  # 2026-08-21T12:34:56.123456Z
HEAD = {
    "method": b"GET",
    "authority": b"shop.example.com:8080",
    "path": b"/api/items",
    "query": b"v=2&w=3",
    "user_agent": b"curl/8.5",
    "referer": b"http://example.com/",
}
FACTS = {
    "wall_us": WALL,
    "duration_us": 1234,
    "upstream_us": 1001,
    "bytes_in": 5,
    "bytes_out": 40,
    "attempts": 1,
    "listener": b"web",
    "route": b"shop",
    "cluster": b"api",
    "upstream": b"127.0.0.1:9001",
    "client": b"192.0.2.7:5511",
    "request_id": b"abc-1",
}


def line(format="json", *, head=HEAD, **facts):
    probe = RecordProbe(format)
    probe.head_of(**head)
    assert probe.write(**{**FACTS, **facts}) == 0
    batch = probe.take()
    assert batch.count(b"\n") == 1 and batch.endswith(b"\n")
    return batch[:-1]


def record(**facts):
    return json.loads(line(**facts))


def test_a_record_has_every_key_in_a_fixed_order():
    row = record()
    assert list(row) == KEYS
    assert row == {
        "time": "2026-08-21T12:34:56.123Z",
        "duration_ms": 1.234,
        "upstream_ms": 1.001,
        "method": "GET",
        "scheme": "http",
        "host": "shop.example.com:8080",
        "path": "/api/items",
        "query": "v=2&w=3",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes_in": 5,
        "bytes_out": 40,
        "flags": "-",
        "listener": "web",
        "route": "shop",
        "cluster": "api",
        "upstream": "127.0.0.1:9001",
        "client": "192.0.2.7:5511",
        "attempts": 1,
        "request_id": "abc-1",
        "user_agent": "curl/8.5",
        "referer": "http://example.com/",
        "detail": "",
    }


def test_what_a_clients_certificate_says_is_there_when_it_showed_one():
    row = record(certificate=b'Hash=00;Subject="CN=me"')
    assert list(row) == [*KEYS, "client_certificate"] and row["client_certificate"] == 'Hash=00;Subject="CN=me"'
    assert len(record(certificate=b"x" * 5000)["client_certificate"]) == 1024


def test_a_request_that_never_parsed_has_the_same_keys_and_types():
    empty = dict.fromkeys(("listener", "route", "cluster", "upstream", "client", "request_id"), b"")
    row = json.loads(line(head={}, status=400, flags=64, detail=b"start_line", protocol=0, **empty))
    full = record()
    assert list(row) == KEYS
    assert {key: type(value) for key, value in row.items()} == {key: type(value) for key, value in full.items()}
    assert row["flags"] == "DPE" and row["detail"] == "start_line" and row["protocol"] == ""


def test_a_target_that_was_refused_is_logged_as_it_came():
    assert record(head={"method": b"GET", "target": b"/a/%2f../x"})["path"] == "/a/%2f../x"
    assert record(head={"method": b"GET", "target": b"/raw?x", "path": b"/raw"})["path"] == "/raw"


@pytest.mark.parametrize(
    "moment",
    [0, 951782399, 951782400, 951868800, 1709164800, 1709251199, 4102444799, 1787315696, 2**31, 253402300799, 68169600],
)
def test_the_time_is_rfc_3339_in_utc(moment):
    stamp = record(wall_us=moment * 1_000_000 + 999_999)["time"]
    assert stamp == datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.999Z").rjust(24, "0")


def test_every_day_of_four_centuries_has_its_date():
    probe = RecordProbe(max_bytes=1 << 27)
    for day in range(146097):
        assert probe.write(wall_us=day * 86400 * 1_000_000) == 0
    first = datetime(1970, 1, 1, tzinfo=UTC)
    for day, row in enumerate(probe.take().splitlines()):
        assert row[9:19].decode() == (first + timedelta(days=day)).strftime("%Y-%m-%d")


def test_the_cached_second_follows_the_clock_both_ways():
    probe = RecordProbe()
    for moment in (10, 10, 11, 10, 0, 10):
        assert probe.write(wall_us=moment * 1_000_000) == 0
    times = [json.loads(row)["time"][17:19] for row in probe.take().splitlines()]
    assert times == ["10", "10", "11", "10", "00", "10"]


def test_a_clock_beyond_the_calendar_does_no_harm():
    assert record(wall_us=2**64 - 1)["time"].startswith("9999-12-31T23:59:59.")


@pytest.mark.parametrize("value", [0, 1, 9, 10, 99, 100, 101, 12345, 999999, 10**12 + 7, 2**63, 2**64 - 1])
def test_numbers_are_written_in_full(value):
    row = line(bytes_in=value, bytes_out=value, duration_us=value, upstream_us=value)
    assert b'"bytes_in":%d,"bytes_out":%d,' % (value, value) in row
    assert b'"duration_ms":%d.%03d,"upstream_ms":%d.%03d,' % (value // 1000, value % 1000, value // 1000, value % 1000) in row


def test_flags_have_envoys_names():
    names = ["NR", "UF", "UC", "UO", "UT", "DC", "DPE", "UPE", "URX", "NC", "UH", "DT", "RL", "SI", "LR"]
    for bit, name in enumerate(names):
        assert record(flags=1 << bit)["flags"] == name
    assert record(flags=2 | 256)["flags"] == "UF,URX"
    assert record(flags=2**15 - 1)["flags"] == ",".join(names)
    assert record(flags=2**32 - 1)["flags"] == ",".join(names)


@pytest.mark.parametrize("protocol, name", [(1, "TCP"), (2, "TLS"), (10, "HTTP/1.0"), (11, "HTTP/1.1"), (20, "HTTP/2")])
def test_protocols_have_their_names(protocol, name):
    assert record(protocol=protocol)["protocol"] == name


# ---- peers' bytes ----


def every_byte_at(position, filler=b"abcdefgh"):
    return [filler[:position] + bytes([c]) + filler[position:] for c in range(256)]


@pytest.mark.parametrize("position", range(9))
def test_any_byte_at_any_place_of_a_word_survives_json(position):
    for value in every_byte_at(position):
        row = line(head={**HEAD, "path": b"/" + value, "user_agent": value}, client=value)
        assert all(0x20 <= c < 0x7F for c in row)
        assert json.loads(row)["user_agent"] == json.loads(row)["client"] == value.decode("latin-1")
        assert json.loads(row)["path"] == "/" + value.decode("latin-1")


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("field", ["method", "authority", "path", "query", "user_agent", "referer"])
def test_no_byte_of_a_peer_can_end_the_line_or_reach_a_terminal(format, field):
    evil = bytes(range(256)) + b'\r\n{"time":"forged"}\r\n\x1b[2J\x1b]0;owned\x07\x9b31m'
    row = line(format, head={**HEAD, field: evil})
    assert all(0x20 <= c < 0x7F for c in row)


@pytest.mark.parametrize("field", ["listener", "route", "cluster", "upstream", "client", "request_id", "detail"])
def test_names_and_addresses_are_escaped_too(field):
    evil = b'"},\n\x00\xff\x1b'
    row = line(**{field: evil})
    assert json.loads(row)[field] == evil.decode("latin-1")
    assert all(0x20 <= c < 0x7F for c in line("text", **{field: evil}))


def test_the_scheme_is_that_of_the_connection():
    assert record()["scheme"] == "http"
    assert record(secure=True)["scheme"] == "https"
    assert [record(protocol=carried)["scheme"] for carried in (1, 2)] == ["", ""]


def test_long_fields_are_cut():
    head = {key: b"x" * 60000 for key in HEAD}
    row = json.loads(line(head=head, client=b"y" * 5000, detail=b"z" * 5000))
    assert len(row["path"]) == len(row["query"]) == 1024
    assert {len(row[key]) for key in ("method", "host", "user_agent", "referer", "client", "detail")} == {256}
    worst = line(head={key: b"\xff" * 60000 for key in HEAD}, **{key: b"\xff" * 999 for key in ("listener", "route", "cluster")})
    assert len(worst) < 6 * (2 * 1024 + 12 * 256) + 1024


# ---- text ----


def test_the_text_format_begins_like_the_combined_format():
    row = line("text").decode()
    combined = re.fullmatch(r'(\S+) - - \[([^]]+)\] "([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)" (.*)', row)
    assert combined is not None
    assert combined.groups() == (
        "192.0.2.7:5511",
        "21/Aug/2026:12:34:56 +0000",
        "GET /api/items?v=2&w=3 HTTP/1.1",
        "200",
        "40",
        "http://example.com/",
        "curl/8.5",
        "1.234 1.001 5 - shop.example.com:8080 web shop api 127.0.0.1:9001 1 abc-1 -",
    )


def test_the_columns_of_a_text_line_never_shift():
    plain = line("text").count(b" ")
    assert line("text", route=b"a b c", client=b"a b", detail=b"x y").count(b" ") == plain
    assert line("text", route=b"", cluster=b"", upstream=b"").count(b" ") == plain


def test_quotes_in_a_text_line_are_escaped():
    assert b'"a\\"b\\\\c\\x0a\\xff"' in line("text", head={**HEAD, "user_agent": b'a"b\\c\n\xff'})


# ---- the buffer ----


def test_off_writes_nothing():
    probe = RecordProbe("off")
    assert probe.write() == 0
    assert probe.take() == b"" and probe.dropped == 0


def test_a_batch_is_taken_once():
    probe = RecordProbe()
    for i in range(100):
        assert probe.write(bytes_out=i) == 0
    assert [json.loads(row)["bytes_out"] for row in probe.take().splitlines()] == list(range(100))
    assert probe.take() == b""
    assert probe.write(bytes_out=7) == 0
    assert json.loads(probe.take())["bytes_out"] == 7


def test_a_full_buffer_drops_and_counts_and_recovers():
    probe = RecordProbe(max_bytes=1 << 20)
    probe.head_of(**HEAD)
    assert probe.write(times=5000, **FACTS) == -1
    batch = probe.take()
    rows = batch.splitlines()
    assert len(batch) <= 1 << 20 and probe.dropped == 5000 - len(rows) > 0
    assert all(list(json.loads(row)) == KEYS for row in rows)
    assert probe.write(**FACTS) == 0
    assert len(probe.take().splitlines()) == 1


def test_a_small_bound_is_kept():
    probe = RecordProbe(max_bytes=3000)
    written = 0
    while probe.write() == 0:
        written += 1
    assert 4 < written < 9 and probe.dropped == 1 and len(probe.take()) <= 3000


# ---- sampling ----


def test_a_share_of_successes_is_logged_and_every_failure():
    probe = RecordProbe(sample=0.25, max_bytes=1 << 24)
    for _ in range(10):
        probe.write(status=200, times=1000)
    assert 2200 < len(probe.take().splitlines()) < 2800
    for failure in ({"status": 503}, {"status": 404}, {"status": 0}, {"status": 200, "flags": 32}):
        probe.write(times=100, **failure)
        assert len(probe.take().splitlines()) == 100


def test_a_sample_of_nothing_still_logs_failures_and_a_redirect_is_none():
    probe = RecordProbe(sample=0.0)
    probe.write(status=200, times=1000)
    probe.write(status=301, flags=1 << 14, times=1000)
    assert probe.take() == b"" and probe.dropped == 0
    probe.write(status=500)
    assert len(probe.take().splitlines()) == 1


def test_a_connection_that_is_carried_has_no_status_and_is_no_failure_for_that():
    probe = RecordProbe(sample=0.0)
    for protocol in (1, 2):
        probe.write(status=0, protocol=protocol, times=100)
        assert probe.take() == b""
        probe.write(status=0, protocol=protocol, flags=2)
        assert len(probe.take().splitlines()) == 1


def test_a_record_costs_little():
    probe = RecordProbe()
    probe.head_of(**HEAD)
    best = 1.0
    for _ in range(20):
        start = time.process_time()
        probe.write(times=1000, **FACTS)
        best = min(best, (time.process_time() - start) / 1000)
        probe.take()
    # Under 1 us in a release build; the bound leaves room for debug and sanitizer builds.
    assert best < 50e-6
