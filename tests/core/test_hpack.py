"""HPACK decoding: RFC 7541 by section, and what RFC 9113 says about field blocks."""

import random
from typing import Any

import pytest
from hpack import Encoder
from hpack.table import HeaderTable

from gateway._core import hpack
from gateway._core.h2test import HpackReader, HpackWriter, static_facts, static_index
from gateway._core.selftest import token

Pairs = list[tuple[bytes, bytes]]


def integer(value: int, bits: int, form: int = 0) -> bytes:
    """RFC 7541 §5.1, the example's algorithm."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([form | value])
    out, value = [form | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def text(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def literal(name: bytes | int, value: bytes, form: int = 0x40) -> bytes:
    bits = 6 if form == 0x40 else 4
    return integer(name, bits, form) + text(value) if isinstance(name, int) else bytes([form]) + text(name) + text(value)


def fields(head: dict[str, Any]) -> Pairs:
    return [(name, value) for name, value, _, _ in head["fields"]]


GET = b"\x82\x86\x84"  # GET http /
HOST = literal(1, b"a.example")


def good(block: bytes, **rest: Any) -> dict[str, Any]:
    head = HpackReader().read(block, **rest)
    assert head["fault"] is None
    return head


def fault(block: bytes, **rest: Any) -> Any:
    return HpackReader().read(block, **rest)["fault"]


# The static table, Appendix A


def test_the_static_table() -> None:
    assert HeaderTable.STATIC_TABLE == hpack.STATIC
    for i, (name, value) in enumerate(hpack.STATIC, 1):
        known, kind, name_len, value_len = static_facts(i)
        assert (known, name_len, value_len) == (token(name), len(name), len(value))
        assert bool(kind) == name.startswith(b":")
        assert hpack.STATIC[static_index(name) - 1][0] == name
        assert all(row[0] != name for row in hpack.STATIC[: static_index(name) - 1])
    for name in (b"", b"a", b"x-age", b"vial", b"age ", b":statu", b"zzzzzzzzzzz"):
        assert static_index(name) == 0


# Integers, §5.1


@pytest.mark.parametrize("value", [0, 1, 30, 31, 32, 127, 128, 158, 254, 255, 256, 1337, 4095, 4096])
def test_5_1_integers_in_size_updates(value: int) -> None:
    reader = HpackReader()
    assert reader.read(integer(value, 5, 0x20) + GET)["fault"] is None
    assert reader.facts()[1] == value


@pytest.mark.parametrize(
    "block",
    [
        b"\xff",
        b"\xff\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
        b"\xff" + b"\x80" * 10 + b"\x00",
        b"\xff" + b"\x80" * 4 + b"\x00",
        b"\xff\xff\xff\xff\x7f",
        b"\x40\x7f\x80\x80\x80\x80\x80\x00",
        b"\x3f\xe1\xff\xff\xff\x7f",
        b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
    ],
)
def test_5_1_integers_that_overflow_or_do_not_end(block: bytes) -> None:
    """Class D5: varints of many bytes."""
    assert fault(block) == "hpack"
    assert fault(GET + block) == "hpack"


# Strings, §5.2


@pytest.mark.parametrize("n", [0, 1, 126, 127, 128, 254, 255, 300, 3000])
def test_5_2_strings_of_every_length(n: int) -> None:
    assert fields(good(GET + literal(b"x-a", b"v" * n)))[0] == (b"x-a", b"v" * n)


def test_5_2_a_string_that_is_longer_than_the_block() -> None:
    block = GET + HOST + literal(b"x-name", b"value") + literal(19, b"other", 0x00)
    whole = good(block)
    assert fields(whole) == [(b"x-name", b"value"), (b"accept", b"other")]
    for n in range(len(block)):
        head = HpackReader().read(block[:n])
        assert head["fault"] == "hpack" or (head["fault"] is None and fields(head) == fields(whole)[: len(head["fields"])])


def test_5_2_huffman_that_is_none() -> None:
    for code in (b"\xff\xff\xff\xff", b"\x00", b"\xf8\xff"):
        assert fault(GET + b"\x40" + text(b"x") + integer(len(code), 7, 0x80) + code) == "hpack"
        assert fault(GET + b"\x00" + integer(len(code), 7, 0x80) + code + text(b"v")) == "hpack"


# Representations, §6, with the examples of Appendix C


def test_c_2_literals() -> None:
    reader = HpackReader()
    head = reader.read(bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572"))
    assert fields(head) == [(b"custom-key", b"custom-header")]
    assert (reader.table(), reader.facts()[0]) == ([(b"custom-key", b"custom-header")], 55)
    head = reader.read(bytes.fromhex("040c2f73616d706c652f70617468"))
    assert head["pseudo"] == {b":path": b"/sample/path"} and len(reader.table()) == 1
    head = reader.read(bytes.fromhex("100870617373776f726406736563726574"))
    assert fields(head) == [(b"password", b"secret")] and len(reader.table()) == 1
    assert reader.read(b"\x82")["pseudo"] == {b":method": b"GET"}


@pytest.mark.parametrize("coded", [False, True])
def test_c_3_and_c_4_requests(coded: bool) -> None:
    blocks = (
        ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"]
        if coded
        else [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ]
    )
    reader = HpackReader()
    first, second, third = (reader.read(bytes.fromhex(block), validate=True) for block in blocks)
    assert first["pseudo"] == {b":method": b"GET", b":scheme": b"http", b":path": b"/", b":authority": b"www.example.com"}
    assert second["pseudo"] == first["pseudo"] and fields(second) == [(b"cache-control", b"no-cache")]
    assert third["pseudo"][b":path"] == b"/index.html" and fields(third) == [(b"custom-key", b"custom-value")]
    assert reader.table() == [
        (b"custom-key", b"custom-value"),
        (b"cache-control", b"no-cache"),
        (b":authority", b"www.example.com"),
    ]
    assert reader.facts()[0] == 164


@pytest.mark.parametrize("coded", [False, True])
def test_c_5_and_c_6_responses_with_eviction(coded: bool) -> None:
    """A table of 256 bytes."""
    blocks = (
        [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab"
            "270fb5291f9587316065c003ed4ee5b1063d5007",
        ]
        if coded
        else [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f777777"
            "2e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f"
            "5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ]
    )
    reader = HpackReader()
    reader.allow(256)
    reader.read(b"\x3f\xe1\x01")
    first, second, third = (reader.read(bytes.fromhex(block), "response") for block in blocks)
    assert first["pseudo"] == {b":status": b"302"} and second["pseudo"] == {b":status": b"307"}
    assert fields(second) == fields(first)
    assert fields(third)[-1] == (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
    assert reader.facts()[0] == 215
    assert [name for name, _ in reader.table()] == [b"set-cookie", b"content-encoding", b"date"]


@pytest.mark.parametrize("index", [0, 62, 63, 127, 200, 5000])
def test_6_1_an_index_that_stands_for_nothing(index: int) -> None:
    assert fault(GET + integer(index, 7, 0x80)) == "hpack"
    if index:
        assert fault(GET + literal(index, b"v")) == "hpack"


def test_2_3_3_the_index_after_the_last_entry() -> None:
    reader = HpackReader()
    reader.read(GET + literal(b"x-a", b"1") + literal(b"x-b", b"2"))
    assert fields(reader.read(GET + b"\xbe\xbf")) == [(b"x-b", b"2"), (b"x-a", b"1")]
    assert reader.read(GET + b"\xc0")["fault"] == "hpack"


# The dynamic table, §4


def test_4_2_a_size_update_comes_first_and_at_most_twice() -> None:
    assert fault(b"\x20\x3f\xe1\x1f" + GET) is None
    assert fault(b"\x20\x20\x20" + GET) == "hpack"
    assert fault(GET + b"\x20") == "hpack"
    assert fault(b"\x20" + GET + b"\x3f\xe1\x1f") == "hpack"


def test_4_2_a_size_update_beyond_what_was_allowed() -> None:
    reader = HpackReader()
    assert reader.read(integer(4097, 5, 0x20) + GET)["fault"] == "hpack"
    reader = HpackReader()
    reader.allow(8192)
    assert reader.read(integer(8192, 5, 0x20) + GET)["fault"] is None
    assert HpackReader().read(integer(65536, 5, 0x20) + GET)["fault"] == "hpack"


def test_4_2_a_lower_limit_must_be_acknowledged_in_the_next_block() -> None:
    reader = HpackReader()
    reader.allow(100)
    assert reader.read(GET)["fault"] == "hpack"
    reader = HpackReader()
    reader.allow(100)
    reader.allow(4096)
    assert reader.read(GET)["fault"] == "hpack"
    reader = HpackReader()
    reader.allow(100)
    assert reader.read(integer(64, 5, 0x20) + GET)["fault"] is None
    assert reader.read(GET)["fault"] is None


def test_4_4_an_entry_larger_than_the_table_empties_it() -> None:
    reader = HpackReader()
    reader.read(GET + literal(b"x-a", b"1"))
    head = reader.read(GET + literal(b"x-big", b"v" * 4096))
    assert fields(head) == [(b"x-big", b"v" * 4096)] and reader.table() == []


def test_4_4_a_name_may_come_from_the_entry_that_its_field_pushes_out() -> None:
    reader = HpackReader()
    reader.read(GET + literal(b"x-" + b"n" * 2000, b"1" * 30))
    head = reader.read(GET + literal(62, b"v" * 2050))
    assert fields(head) == [(b"x-" + b"n" * 2000, b"v" * 2050)]
    assert reader.table() == [(b"x-" + b"n" * 2000, b"v" * 2050)]


def trim(model: Pairs, most: int) -> None:
    while model and sum(len(n) + len(v) + 32 for n, v in model) > most:
        model.pop()


def test_the_table_against_a_simple_one() -> None:
    """Random insertions, references and size changes; the table and its memory stay what they should be."""
    rng, reader, most = random.Random(4), HpackReader(), 4096
    model: Pairs = []
    for _ in range(3000):
        block, expected = b"", []
        if rng.random() < 0.05:
            most = rng.choice([0, 60, 300, 1000, 4096])
            block += integer(most, 5, 0x20)
        block += GET
        trim(model, most)
        for _ in range(rng.randrange(6)):
            if model and rng.random() < 0.4:
                i = rng.randrange(len(model))
                block += integer(62 + i, 7, 0x80)
                expected.append(model[i])
            else:
                name, value = b"x-" + b"n" * rng.randrange(30), b"v" * rng.choice([0, 1, 5, 40, 200, 900])
                named = rng.randrange(len(model)) if model and rng.random() < 0.3 else None
                if named is not None:
                    name = model[named][0]
                form = rng.choice([0x40, 0x40, 0x00, 0x10])
                block += literal(name if named is None else 62 + named, value, form)
                expected.append((name, value))
                if form == 0x40:
                    model.insert(0, (name, value))
                    trim(model, most)
        head = reader.read(block)
        assert head["fault"] is None and fields(head) == expected
        assert reader.table() == model
        _, _, count, log, ring = reader.facts()
        assert log <= 8192 and ring <= 128 and count == len(model)


# Limits, and what happens to the table behind them


def test_list_size_counts_32_bytes_for_each_field() -> None:
    block = GET + HOST + literal(b"x-a", b"12345") + b"\xbe"
    size = (7 + 3 + 32) + (7 + 4 + 32) + (5 + 1 + 32) + (10 + 9 + 32) + 2 * (3 + 5 + 32)
    assert good(block)["list"] == size
    assert fault(block, max_list=size) is None
    assert fault(block, max_list=size - 1) == "fields_large"


def test_count_takes_in_cookie_crumbs_and_no_pseudo_header_fields() -> None:
    block = GET + HOST + b"\x60\x01a" + b"\xbe" * 5
    assert good(block)["count"] == 6
    assert fault(block, max_count=6) is None
    assert fault(block, max_count=5) == "fields_many"


def test_d4_an_indexed_reference_bomb_costs_no_memory() -> None:
    """One entry, 32,000 references: refused at the count, the rest is not stored, and the table stays in order."""
    reader = HpackReader()
    reader.read(GET + HOST + literal(b"a", b"b" * 3000))
    head = reader.read(GET + b"\xbe" * 32000, max_list=1 << 30)
    assert head["fault"] == "fields_many" and len(head["fields"]) == 100 and head["store"] <= 1 << 19
    head = reader.read(GET + b"\xbe" * 32000)
    assert head["fault"] == "fields_large" and len(head["fields"]) <= 10 and head["store"] <= 1 << 19
    assert reader.read(b"\x82\x86\x84\xbf\xbe")["pseudo"][b":authority"] == b"a.example"
    assert reader.table() == [(b"a", b"b" * 3000), (b":authority", b"a.example")]


def test_d4_what_follows_the_first_fault_still_reaches_the_table() -> None:
    """The head is refused; the fields behind the fault are in the table as the sender believes."""
    reader, sender = HpackReader(), Encoder()
    for bad in ((b"x-a", b"\x00"), (b"X-Upper", b"1"), (b":unknown", b"1"), (b"x-huge", b"v" * 40000)):
        pairs = [(b":method", b"GET"), bad, (b"x-after", b"1"), (b"x-later", bad[1][:100])]
        assert reader.read(sender.encode(pairs))["fault"] in ("field_value", "field_name", "h2_pseudo", "fields_large")
        assert reader.table() == list(sender.header_table.dynamic_entries)


def test_d5_entries_of_the_whole_table_referenced_again_and_again() -> None:
    reader = HpackReader()
    reader.read(GET + literal(b"a", b"v" * 4063))
    assert reader.facts()[0] == 4096
    head = reader.read(GET + b"\xbe" * 16000)
    assert head["fault"] == "fields_large" and head["store"] <= 1 << 17
    assert reader.facts()[3] <= 8192


def test_a_name_that_no_field_can_hold() -> None:
    reader = HpackReader()
    reader.read(GET + HOST)
    assert reader.read(GET + literal(b"n" * 70000, b"v", 0x00), max_list=1 << 20)["fault"] == "fields_large"
    assert len(reader.table()) == 1
    assert reader.read(GET + literal(b"n" * 70000, b"v"), max_list=1 << 20)["fault"] == "fields_large"
    assert reader.table() == []


def test_target_length() -> None:
    assert fault(GET[:2] + literal(4, b"/" + b"a" * 99) + HOST, max_target=100) is None
    assert fault(GET[:2] + literal(4, b"/" + b"a" * 100) + HOST, max_target=100) == "target_long"


# Names, values and pseudo-header fields: item 49, RFC 9113 §8.2 and §8.3


@pytest.mark.parametrize(
    "name",
    [b"", b"X-A", b"x-A", b"x a", b" x", b"x:y", b"x:", b"x\r", b"x\n", b"x\x00", b"x\x7f", b"x\x80", b"\xffx", b"x(", b'x"'],
)
def test_item_49_names(name: bytes) -> None:
    assert fault(GET + literal(name, b"v")) == "field_name"
    assert fault(GET + literal(name, b"v", 0x00)) == "field_name"
    reader = HpackReader()
    reader.read(GET + literal(name, b"v"))
    assert reader.read(GET + b"\xbe")["fault"] == "field_name"
    assert reader.read(GET + literal(62, b"w"))["fault"] == "field_name"


@pytest.mark.parametrize(
    "value",
    [
        b" v",
        b"v ",
        b"\tv",
        b"v\t",
        b" ",
        b"\t",
        b"\r",
        b"a\rb",
        b"a\nb",
        b"a\x00b",
        b"\x00",
        b"a\x7f",
        b"\x1f",
        b"x" * 40 + b"\x00",
        b"a" * 7 + b"\n" + b"b" * 9,
        b"v" * 30 + b" ",
        b"\x0b",
        b"a\x08",
    ],
)
def test_item_49_values(value: bytes) -> None:
    assert fault(GET + literal(b"x-a", value)) == "field_value"
    assert fault(GET + literal(1, value)) == "field_value"
    reader = HpackReader()
    reader.read(GET + literal(b"x-a", value))
    assert reader.read(GET + b"\xbe")["fault"] == "field_value"
    assert reader.read(GET + literal(62, b"good"))["fault"] is None


@pytest.mark.parametrize(
    "value", [b"", b"a", b"a b", b"a\tb", b"\x80\xff", b"a" * 9, b"in the\tmiddle of it", b"\xc3\xa4" * 20, b":"]
)
def test_item_49_values_that_are_good(value: bytes) -> None:
    assert fields(good(GET + literal(b"x-a", value))) == [(b"x-a", value)]


def test_8_3_pseudo_header_fields_come_first_and_once() -> None:
    assert fault(GET + literal(b"x-a", b"1") + b"\x84") == "h2_pseudo"
    assert fault(b"\x82\x82\x86\x84") == "h2_pseudo"
    assert fault(b"\x82\x83\x86\x84") == "h2_pseudo"
    assert fault(GET + HOST + literal(1, b"b")) == "h2_pseudo"
    assert fault(GET + b"\x85") == "h2_pseudo"
    assert fault(GET + b"\x87") == "h2_pseudo"


@pytest.mark.parametrize("name", [b":", b":a", b":Method", b":status ", b":host", b":methods", b":protocols", b":path:"])
def test_8_3_unknown_pseudo_header_fields(name: bytes) -> None:
    for kind in ("request", "response", "trailers"):
        assert fault(literal(name, b"1"), kind=kind) == "h2_pseudo"


def test_8_3_each_kind_of_message_has_its_own() -> None:
    assert fault(b"\x88", kind="request") == "h2_pseudo"
    assert fault(b"\x88", kind="trailers") == "h2_pseudo"
    assert fault(b"\x82", kind="response") == "h2_pseudo"
    assert fault(b"\x82", kind="trailers") == "h2_pseudo"
    assert good(b"\x88", kind="response")["pseudo"] == {b":status": b"200"}
    assert good(literal(b"grpc-status", b"0"), kind="trailers")["fields"] == [(b"grpc-status", b"0", False, False)]


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"2x0", b" 20", b"20a", b"-20", b"+20", b"2.0", b"\xb2\xb2\xb2"])
def test_8_3_2_status_is_three_digits(status: bytes) -> None:
    assert fault(literal(8, status), kind="response") in ("status", "field_value")


@pytest.mark.parametrize("method", [b"", b"G T", b"GET/", b"G\xc4", b"M" * 33, b"(", b"GET:"])
def test_item_50_method_is_a_token(method: bytes) -> None:
    assert fault(literal(2, method) + b"\x86\x84") == "method"


def test_methods_are_known_and_their_case_is_kept() -> None:
    for number, name in enumerate(
        [b"FOO", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"]
    ):
        head = good(literal(2, name) + b"\x86\x84")
        assert (head["pseudo"][b":method"], head["method_id"]) == (name, number)
    assert good(literal(2, b"get") + b"\x86\x84")["method_id"] == 0


# Any block, any encoder


def test_what_hpack_writes_is_read_the_same() -> None:
    rng = random.Random(7)
    names = [b"accept", b"cookie", b"x-trace", b"via", b"content-type", b"x-" + b"l" * 40]
    for _ in range(30):
        sender, reader = Encoder(), HpackReader()
        for _ in range(20):
            pairs = [
                (rng.choice(names), rng.choice([b"", b"1", b"text/html", b"\xe4", b"z" * 300])) for _ in range(rng.randrange(9))
            ]
            if rng.random() < 0.2:
                sender.header_table_size = rng.choice([0, 100, 4096])
            head = reader.read(sender.encode(pairs, huffman=rng.random() < 0.5))
            assert head["fault"] is None and fields(head) == pairs
            assert reader.table() == list(sender.header_table.dynamic_entries)


def test_our_writer_and_reader_agree_on_the_table() -> None:
    rng, writer, reader = random.Random(8), HpackWriter(), HpackReader()
    for i in range(400):
        pairs = [(b":method", b"GET"), (b":path", b"/%d" % rng.randrange(5)), (b":authority", b"a.example")]
        pairs += [(b"x-%d" % rng.randrange(12), b"v%d" % rng.randrange(3)) for _ in range(rng.randrange(12))]
        if i % 50 == 49:
            size = rng.choice([0, 64, 500, 4096])
            writer.limit(size)
        head = reader.read(writer.write(pairs))
        assert head["fault"] is None and fields(head) == pairs[3:]
        assert head["pseudo"] == {**dict(pairs[:3]), b":scheme": b"http"}
        assert writer.table() == reader.table()
