"""The blob: opened in place, verified once, refused with a reason, and never able to crash its reader."""

import mmap
import random
import struct
from time import perf_counter
from typing import Any

import pytest
from routing import compiled, match, route, rule

from gateway._core import explain, snapshot
from gateway._core.snapshot import LAYOUT, SECTION_NAMES, SnapshotError, load
from gateway.model import Listener
from gateway.model.policy import Rate, RateLimit, RateOverride
from gateway.model.route import (
    CORS,
    BackendObjectRef,
    HeaderModifier,
    HTTPHeader,
    HTTPRouteFilter,
    HTTPRouteRule,
    PathModifier,
    RequestMirror,
    RequestRedirect,
    Retry,
    SessionPersistence,
    URLRewrite,
)
from gateway.model.scalars import Period

HEADER = 32


def rich() -> bytes:
    """A blob with something in every section."""
    modifier = HeaderModifier(set=(HTTPHeader("x", "1"),), remove=("y",))
    edits = HTTPRouteFilter("RequestHeaderModifier", request_header_modifier=modifier)
    new_prefix = PathModifier("ReplacePrefixMatch", replace_prefix_match="/v2")
    rewrite = HTTPRouteFilter("URLRewrite", url_rewrite=URLRewrite(path=new_prefix))
    away = HTTPRouteFilter("RequestRedirect", request_redirect=RequestRedirect(hostname="b.test"))
    mirror = HTTPRouteFilter("RequestMirror", request_mirror=RequestMirror(BackendObjectRef("origin"), percent=50))
    other = HTTPRouteFilter("CORS", cors=CORS(("https://a.test",), allow_methods=("GET",), expose_headers=("x",)))
    session = SessionPersistence("s")
    routes = (
        route("a", rule(match("/api"), match("/x", "Exact", "GET", {"h": "1"}, {"q": "2"}), filters=(edits, rewrite))),
        route("b", rule(match("/r[0-9]+", "RegularExpression", headers={"h": "a|b"}, regex=True)), hosts=("*.example.com",)),
        route("c", rule(match("/old"), filters=(away,), to=())),
        route("e", rule(match("/e"), filters=(mirror, other))),
        route("again", HTTPRouteRule(matches=(match("/again"),), retry=Retry(codes=(502, 503)), session_persistence=session)),
        route("d", *(rule(match(f"/n/{number}")) for number in range(20)), hosts=("d.example.com", "x.test")),
    )
    listeners = (
        Listener(name="web", port=8080, rate_limits=("all",)),
        Listener(name="wild", port=8080, hostname="*.example.com"),
        Listener(name="two", port=81),
    )
    own = RateOverride(("a", "/b"), limit=Rate(9, Period(1000)))
    limit = RateLimit("all", Rate(5, Period(1000)), key=("header:x", "path"), overrides=(own,), cost_header="x-cost")
    return compiled(*routes, listeners=listeners, revision=7, rate_limits=(limit,)).blob


def section(blob: bytes | bytearray, name: str) -> tuple[int, int]:
    offset, count = struct.unpack_from("=II", blob, HEADER + 8 * SECTION_NAMES.index(name))
    return offset, count


def spoiled(blob: bytes, name: str, record: int, field: str, value: int) -> bytearray:
    """The blob with one word changed and sealed again."""
    copy = bytearray(blob)
    offset, count = section(copy, name)
    assert record < count
    struct.pack_into("=I", copy, offset + 4 * (record * len(LAYOUT[name]) + LAYOUT[name].index(field)), value)
    snapshot.seal(copy)
    return copy


def word(blob: bytes, name: str, record: int, field: str) -> int:
    offset, _ = section(blob, name)
    (value,) = struct.unpack_from("=I", blob, offset + 4 * (record * len(LAYOUT[name]) + LAYOUT[name].index(field)))
    return int(value)


def ask_around(loaded: Any) -> None:
    """Sends some requests of all kinds through a snapshot, filters included."""
    for port, _ in explain.port_ids(loaded):
        for host in (b"a.example.com", b"d.example.com", b"x.test", b"other", b""):
            for path in (b"/", b"/api/x", b"/x", b"/r12", b"/old/a", b"/n/3/y", b"/n/19", b"*"):
                explain.explain_route(loaded, port, b"GET", host, path, b"q=2&z", [(b"h", b"a"), (b"y", b"1")])
                explain.preview_request(loaded, port, b"GET", host, path, b"q=2", [(b"h", b"1")])
    loaded.describe()
    for number in range(loaded.counts_by_section["rules"]):
        explain.preview_response(loaded, number, [(b"x", b"1")])


def test_no_section_is_empty_in_the_blob_of_these_tests() -> None:
    assert all(load(rich()).counts_by_section.values())


def test_a_blob_opens_and_tells_what_is_in_it() -> None:
    loaded = load(rich())
    assert loaded.revision == 7
    told = loaded.describe()
    assert [listener["name"] for listener in told["listeners"]] == ["web", "wild", "two"]
    assert told["listeners"][0]["hosts"] == ["*", "*.example.com", "d.example.com", "x.test"]
    assert told["routes"] == ["a", "again", "b", "c", "d", "e"]
    assert [cluster["name"] for cluster in told["clusters"]] == ["origin"]
    assert loaded.counts_by_section["rules"] == 25
    assert len(loaded.regexes) == loaded.counts_by_section["regexes"] == 2
    assert "revision=7" in repr(loaded)
    ask_around(loaded)


def test_every_kind_of_buffer_will_do() -> None:
    blob = rich()
    with mmap.mmap(-1, len(blob)) as mapped:
        mapped[:] = blob
        loaded = load(mapped)
        assert loaded.revision == 7
        ask_around(loaded)
        del loaded
    for shift in range(1, 8):
        assert load(memoryview(b"\0" * shift + blob)[shift:]).revision == 7, "unaligned"
    with pytest.raises(SnapshotError, match="contiguous"):
        load(memoryview(blob + blob)[::2])
    for nothing in (b"", b"\0" * 8, b"\0" * 4096):
        with pytest.raises(SnapshotError, match="header"):
            load(nothing)


def test_the_buffer_is_kept_and_held() -> None:
    blob = bytearray(rich())
    loaded = load(blob)
    with pytest.raises(BufferError):
        blob.extend(b"x")
    del loaded
    blob.extend(b"x")


def test_a_snapshot_is_made_by_load_alone() -> None:
    with pytest.raises(TypeError):
        snapshot.Snapshot()


def test_truncation_and_noise_are_refused() -> None:
    blob = rich()
    for size in {0, 1, 8, 32, 160, 168, len(blob) - 8, len(blob) - 1}:
        with pytest.raises(SnapshotError):
            load(blob[:size])
    for extra in (b"\0", b"\0" * 8):
        with pytest.raises(SnapshotError):
            load(blob + extra)
    draw = random.Random(5)
    for _ in range(2000):
        copy = bytearray(blob)
        copy[draw.randrange(len(copy))] ^= 1 << draw.randrange(8)
        with pytest.raises(SnapshotError):
            load(copy)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("ports", "address_off", 1 << 30),
        ("ports", "listeners_n", 9),
        ("ports", "hosts", 1 << 20),
        ("ports", "hosts_mask", 2),
        ("ports", "hosts_mask", 0xFFFFFFFF),
        ("ports", "proxy_protocol", 2),
        ("listeners", "name_n", 1 << 31),
        ("listeners", "hostname_off", 0xFFFFFFFF),
        ("listeners", "port", 2),
        ("listeners", "port_number", 65536),
        ("listeners", "protocol", 5),
        ("listeners", "limits", 1),
        ("listeners", "hosts_mask", 0xFFFF),
        ("vhosts", "host_n", 1 << 31),
        ("vhosts", "paths", 0xFFFFFFFF),
        ("vhosts", "paths_mask", 5),
        ("vhosts", "deepest", 513),
        ("vhosts", "regex_rows", 0xFFFFFFFF),
        ("vhosts", "regex_rows_n", 0xFFFFFFFF),
        ("rows", "rule", 25),
        ("rows", "method", 10),
        ("rows", "method_text_n", 1 << 30),
        ("rows", "regex", 2),
        ("rows", "matches", 0xFFFFFFFF),
        ("rows", "headers_n", 0xFFFFFFFF),
        ("rows", "queries_n", 0xFFFFFFFF),
        ("matches", "name_off", 1 << 31),
        ("matches", "value_n", 1 << 31),
        ("matches", "regex", 2),
        ("routes", "name_off", 1 << 31),
        ("routes", "kind", 4),
        ("rules", "route", 6),
        ("rules", "filters", 1 << 31),
        ("rules", "backends_n", 1 << 31),
        ("rules", "retry", 1),
        ("retries", "codes_n", 9),
        ("rules", "rates_n", 9),
        ("listeners", "rates", 99),
        ("clusters", "rates_n", 4),
        ("rates", "name_n", 300),
        ("rates", "algorithm", 4),
        ("rates", "mode", 3),
        ("rates", "on_failure", 3),
        ("rates", "style", 4),
        ("rates", "cost", 0),
        ("rates", "cost_header_n", 1 << 31),
        ("rates", "parts_n", 3),
        ("rates", "terms", 2),
        ("rates", "overrides_n", 2),
        ("rates", "tag_n", 1 << 31),
        ("terms", "requests", 0),
        ("terms", "capacity", 4),
        ("overrides", "terms", 2),
        ("key_parts", "kind", 11),
        ("key_parts", "name_n", 1 << 31),
        ("rules", "weight", 2),
        ("rules", "mirrors_n", 2),
        ("rules", "mirrors", 0xFFFFFFFF),
        ("rules", "cors", 1),
        ("rules", "session", 1),
        ("sessions", "kind", 0),
        ("sessions", "kind", 3),
        ("sessions", "name_n", 0),
        ("sessions", "name_n", 129),
        ("sessions", "tail_n", 65),
        ("sessions", "tail_off", 1 << 31),
        ("mirrors", "cluster", 1),
        ("cors", "origins", 2),
        ("cors", "origins_n", 2),
        ("cors", "methods_n", 1 << 31),
        ("cors", "headers_off", 1 << 31),
        ("cors", "expose_n", 1 << 31),
        ("cors", "max_age_off", 1 << 31),
        ("origins", "origin_n", 1 << 31),
        ("backends", "cluster", 1),
        ("backends", "weight", 5),
        ("backends", "filters_n", 1 << 31),
        ("filters", "kind", 0),
        ("filters", "kind", 5),
        ("filters", "edits_n", 1 << 31),
        ("filters", "scheme_n", 1 << 31),
        ("filters", "host_off", 1 << 31),
        ("filters", "port", 65536),
        ("filters", "path_kind", 3),
        ("filters", "path_n", 1 << 31),
        ("edits", "kind", 3),
        ("edits", "name_n", 0),
        ("edits", "name_n", 65536),
        ("edits", "value_off", 1 << 31),
        ("clusters", "name_off", 1 << 31),
        ("clusters", "policy", 4),
        ("clusters", "key_kind", 5),
        ("clusters", "key_name_n", 1 << 31),
        ("clusters", "protocol", 3),
        ("clusters", "outlier_percent", 101),
        ("clusters", "tls", 2),
        ("regexes", "pattern_n", 1 << 31),
    ],
)
def test_a_wrong_word_is_refused_by_section_and_record(name: str, field: str, value: int) -> None:
    with pytest.raises(SnapshotError, match=r"^\w+\[\d+\]: "):
        load(spoiled(rich(), name, 0, field, value))


def test_the_refusal_names_the_record() -> None:
    with pytest.raises(SnapshotError, match=r"^rules\[3\]: weight$"):
        load(spoiled(rich(), "rules", 3, "weight", 99))
    blob = rich()
    redirect = next(i for i in range(section(blob, "filters")[1]) if word(blob, "filters", i, "kind") == 3)
    with pytest.raises(SnapshotError, match=rf"^filters\[{redirect}\]: status$"):
        load(spoiled(blob, "filters", redirect, "status", 200))


def test_hash_tables_keep_a_free_slot() -> None:
    """Without one a lookup would never end; half of them are asked for."""
    blob = rich()
    for name, table, mask, free in (("hosts", "listeners", "hosts_mask", "value"), ("paths", "vhosts", "paths_mask", "rows")):
        owner = max(range(section(blob, table)[1]), key=lambda record: word(blob, table, record, mask))
        first, slots = word(blob, table, owner, "hosts" if name == "hosts" else "paths"), word(blob, table, owner, mask) + 1
        copy = blob
        for slot in range(first, first + slots):
            copy = bytes(spoiled(copy, name, slot, free, 0))
        with pytest.raises(SnapshotError, match=rf"^{name}\[\d+\]: .* half full"):
            load(copy)


def test_slots_are_checked_where_they_stand() -> None:
    blob = rich()
    used = next(i for i in range(section(blob, "hosts")[1]) if word(blob, "hosts", i, "value") != 0xFFFFFFFF)
    for field, value in (("value", 1000), ("host_n", 1 << 31)):
        with pytest.raises(SnapshotError, match=rf"^hosts\[{used}\]"):
            load(spoiled(blob, "hosts", used, field, value))
    used = next(i for i in range(section(blob, "paths")[1]) if word(blob, "paths", i, "rows") != 0xFFFFFFFF)
    counts = (("exact_n", 1 << 31), ("prefix_n", 0xFFFFFFFF))
    for field, value in (("path_off", 1 << 31), *counts, ("exact_rule", 99), ("prefix_rule", 99)):
        with pytest.raises(SnapshotError, match=rf"^paths\[{used}\]"):
            load(spoiled(blob, "paths", used, field, value))


def test_a_regex_row_must_have_its_regex() -> None:
    blob = rich()
    row = next(i for i in range(section(blob, "rows")[1]) if word(blob, "rows", i, "regex") != 0xFFFFFFFF)
    with pytest.raises(SnapshotError, match=rf"^rows\[{row}\]: regex"):
        load(spoiled(blob, "rows", row, "regex", 0xFFFFFFFF))


def test_a_pattern_that_re2_does_not_take_is_refused() -> None:
    blob = bytearray(rich())
    at = bytes(blob).index(b"/r[0-9]+")
    blob[at : at + 8] = b"/r[0-9++"
    snapshot.seal(blob)
    with pytest.raises(SnapshotError, match=r"^regexes\[\d\]: missing \]"):
        load(blob)


@pytest.mark.parametrize("index", range(len(SECTION_NAMES)))
@pytest.mark.parametrize(("offset", "count"), [(0, 1), (168, 0xFFFFFFFF), (0xFFFFFFFC, 1), (170, 1)])
def test_a_section_outside_the_blob_is_refused(index: int, offset: int, count: int) -> None:
    blob = bytearray(rich())
    struct.pack_into("=II", blob, HEADER + 8 * index, offset, count)
    snapshot.seal(blob)
    with pytest.raises(SnapshotError, match=SECTION_NAMES[index]):
        load(blob)


def test_another_layout_is_refused() -> None:
    for at, what in ((0, "not a snapshot"), (4, "layout"), (8, "bytes instead of"), (12, "layout")):
        blob = bytearray(rich())
        struct.pack_into("=I", blob, at, 99)
        with pytest.raises(SnapshotError, match=what):
            load(blob)


@pytest.mark.parametrize("seed", range(8))
def test_no_change_of_a_sealed_blob_can_crash_its_reader(seed: int) -> None:
    """Bytes are changed and the checksum set right: what loads must be safe to ask anything, even if its answers are nonsense."""
    draw = random.Random(seed)
    blob = rich()
    survived = 0
    special = (0, 1, 2, 3, 0x7F, 0xFF, 0x80)
    for _ in range(400):
        copy = bytearray(blob)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            at = draw.randrange(32, len(copy))
            if draw.random() < 0.5:
                copy[at] ^= 1 << draw.randrange(8)
            else:
                struct.pack_into("=I", copy, at & ~3, draw.choice((*special, 0xFFFFFFFF, 0x7FFFFFFF, draw.getrandbits(32))))
        snapshot.seal(copy)
        try:
            loaded = load(copy)
        except SnapshotError:
            continue
        survived += 1
        ask_around(loaded)
    assert survived > 20, "most changes were refused: this test no longer reaches the readers"


def test_layout_words_are_named_once() -> None:
    assert (*LAYOUT, "strings") == SECTION_NAMES
    assert all(len(set(fields)) == len(fields) for fields in LAYOUT.values())


def test_seal_and_header_refuse_what_is_no_blob() -> None:
    for size in (0, 31, 33, 100):
        with pytest.raises(ValueError):
            snapshot.seal(bytearray(size))
    with pytest.raises(ValueError, match="too large"):
        snapshot.pack_header(1 << 32, 0)


def test_patterns_compiled_once_are_found_again() -> None:
    first, second = load(rich()), load(rich())
    assert all(a is b for a, b in zip(first.regexes, second.regexes, strict=True))


@pytest.mark.slow
def large() -> bytes:
    """A blob of some thousand rules and more patterns than one piece compiles."""
    rules = [rule(match(f"/large/{number}")) for number in range(6000)]
    patterns = [rule(match(f"/p{number}/[a-z]+", "RegularExpression")) for number in range(50)]
    routes = (route(f"r{n}", *rules[n * 16 : n * 16 + 16]) for n in range(375))
    return compiled(*routes, *(route(f"p{n}", each) for n, each in enumerate(patterns))).blob


def pieces(opened: Any) -> int:
    count = 1
    while not snapshot.verify_some(opened):
        count += 1
    return count


def test_a_large_blob_is_checked_in_pieces() -> None:
    """A worker serves between them, so that its pause does not grow with the configuration."""
    opened = snapshot.open_snapshot(large())
    assert not opened.is_good
    assert pieces(opened) > 10 and opened.is_good
    assert pieces(opened) == 1
    assert pieces(snapshot.open_snapshot(rich())) == 2


def test_what_is_wrong_is_found_in_the_last_piece_too_and_stays_wrong() -> None:
    blob = large()
    last = section(blob, "clusters")[1] - 1
    for bad, what in (
        (spoiled(blob, "clusters", last, "policy", 99), "policy"),
        (bytearray(blob[:-1] + bytes([blob[-1] ^ 1])), "checksum"),
        (spoiled(blob, "rows", 5000, "rule", 0xFFFFFFF0), "rule"),
    ):
        opened = snapshot.open_snapshot(bad)
        for _ in range(2):
            with pytest.raises(SnapshotError, match=what):
                pieces(opened)
        assert not opened.is_good


def test_ten_thousand_rules_open_fast() -> None:
    """A swap may cost a worker under a millisecond; the bound here leaves room for a busy machine."""
    routes = [route(f"r{h}", *(rule(match(f"/svc/{r}")) for r in range(10)), hosts=(f"h{h}.test",)) for h in range(1000)]
    blob = compiled(*routes).blob
    times = []
    for _ in range(20):
        start = perf_counter()
        load(blob)
        times.append(perf_counter() - start)
    assert min(times) < 0.005
