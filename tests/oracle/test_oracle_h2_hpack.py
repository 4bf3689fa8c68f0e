"""HPACK against other implementations: every story of the corpus, and the hpack library on whatever hypothesis thinks of.

GW_ORACLE_EXAMPLES sets how much is tried, as in test_oracle_messages.
"""

import os

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stories import FOLDERS, Pairs, kind_of, pairs_of, stories

from gateway._core.h2test import HpackReader, HpackWriter

EXAMPLES = int(os.environ.get("GW_ORACLE_EXAMPLES", "60"))
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="GW_ORACLE_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Written elsewhere or not at all by our encoder.
LEFT_OUT = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade",
    b"http2-settings",
}  # fmt: skip


def split(pairs: Pairs) -> tuple[dict[bytes, bytes], Pairs]:
    return {n: v for n, v in pairs if n.startswith(b":")}, [(n, v) for n, v in pairs if not n.startswith(b":")]


def fault_of(pairs: Pairs) -> str | None:
    """What RFC 9113 says against heads that were fine when the corpus was made."""
    for number, (name, value) in enumerate(pairs):
        if name.startswith(b":") and any(not n.startswith(b":") for n, _ in pairs[:number]):
            return "h2_pseudo"
        if value != value.strip(b" \t"):
            return "field_value"
    return None


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_story_is_decoded(folder: str) -> None:
    seen = 0
    for name, cases in stories(folder):
        reader = HpackReader()
        for case in cases:
            if case.get("header_table_size"):
                reader.allow(case["header_table_size"])
            pairs = pairs_of(case)
            head = reader.read(bytes.fromhex(case["wire"]), kind_of(pairs), max_count=1000, max_list=1 << 20)
            assert head["fault"] == fault_of(pairs), (name, case["seqno"])
            if head["fault"] is None:
                pseudo, rest = split(pairs)
                assert (head["pseudo"], [(n, v) for n, v, _, _ in head["fields"]]) == (pseudo, rest), (name, case["seqno"])
            seen += 1
    assert seen > 2000


def test_every_head_of_the_corpus_is_encoded_and_decoded_again() -> None:
    ours, theirs_size, seen = 0, 0, 0
    for name, cases in stories("raw-data"):
        writer, reader, theirs, other = HpackWriter(), HpackReader(), Decoder(), Encoder()
        theirs.max_header_list_size = 1 << 20
        for case in cases:
            pairs = [(n, v.strip(b" \t")) for n, v in pairs_of(case)]
            pseudo, rest = split(pairs)
            kept = [(n, v) for n, v in rest if n not in LEFT_OUT]
            if kind_of(pairs) == "request" and pseudo[b":method"] in (b"POST", b"PUT", b"PATCH"):
                kept.append((b"content-length", b"0"))
            block = writer.write(pairs, kind_of(pairs))
            head = reader.read(block, kind_of(pairs), max_count=1000, max_list=1 << 20)
            assert (head["fault"], head["pseudo"]) == (None, pseudo), name
            assert [(n, v) for n, v, _, _ in head["fields"]] == kept, name
            again = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
            assert split(again) == (pseudo, kept)
            assert writer.table() == reader.table()
            ours, theirs_size, seen = ours + len(block), theirs_size + len(other.encode([*pseudo.items(), *kept])), seen + 1
    assert seen > 3000
    # That a field is kept only when it comes again, and a cookie never, costs a tenth against keeping everything.
    assert ours < 1.15 * theirs_size


NAME = st.one_of(
    st.sampled_from([b"accept", b"cookie", b"x-a", b"via", b"content-type", b"set-cookie", b"www-authenticate", b"x-request-id"]),
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-!#$", min_size=1, max_size=40).map(str.encode),
)
VALUE = st.one_of(
    st.sampled_from([b"", b"1", b"text/html", b"gzip, deflate", b"\xe4\xff", b"z" * 200]),
    st.binary(max_size=60).filter(lambda v: v == v.strip(b" \t") and not any((c < 32 and c != 9) or c == 127 for c in v)),
)
FIELDS = st.lists(st.tuples(NAME, VALUE), max_size=12)
SIZE = st.one_of(st.none(), st.none(), st.sampled_from([0, 33, 64, 500, 4096]))


@bounded
@given(st.lists(st.tuples(FIELDS, SIZE, st.booleans()), min_size=1, max_size=8))
def test_what_hpack_encodes(blocks: list[tuple[Pairs, int | None, bool]]) -> None:
    sender, reader = Encoder(), HpackReader()
    for pairs, size, coded in blocks:
        if size is not None:
            sender.header_table_size = size
        head = reader.read(sender.encode(pairs, huffman=coded), "trailers")
        assert head["fault"] is None
        assert [(n, v) for n, v, _, _ in head["fields"]] == pairs
        assert reader.table() == list(sender.header_table.dynamic_entries)


@bounded
@given(st.lists(st.tuples(FIELDS, SIZE), min_size=1, max_size=8))
def test_what_hpack_decodes(blocks: list[tuple[Pairs, int | None]]) -> None:
    writer, receiver = HpackWriter(), Decoder()
    for pairs, size in blocks:
        if size is not None:
            writer.limit(size)
        start = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/p"), (b":authority", b"a")]
        decoded = [(bytes(n), bytes(v)) for n, v in receiver.decode(writer.write([*start, *pairs]), raw=True)]
        assert decoded == [*start, *((n, v) for n, v in pairs if n not in LEFT_OUT)]
        assert writer.table() == [(bytes(n), bytes(v)) for n, v in receiver.header_table.dynamic_entries]


@st.composite
def damaged(draw: st.DrawFn) -> list[bytes]:
    """Blocks of one encoder, some bytes of them changed, cut out or put in."""
    sender = Encoder()
    blocks = []
    for pairs in draw(st.lists(FIELDS, min_size=1, max_size=4)):
        block = bytearray(sender.encode(pairs, huffman=draw(st.booleans())))
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(block)))
            what = draw(st.integers(0, 2))
            if what == 0:
                block[at:at] = draw(st.binary(min_size=1, max_size=4))
            elif what == 1:
                del block[at : at + 2]
            elif at < len(block):
                block[at] ^= 1 << draw(st.integers(0, 7))
        blocks.append(bytes(block))
    return blocks


@bounded
@given(damaged())
def test_what_both_say_of_damaged_blocks(blocks: list[bytes]) -> None:
    """Where we decode, hpack does, and the same; what we refuse and it accepts is one of the reviewed kinds."""
    reader, other = HpackReader(), Decoder()
    other.max_header_list_size = 32768
    for block in blocks:
        head = reader.read(block, "trailers", max_count=10000)
        try:
            pairs = [(bytes(n), bytes(v)) for n, v in other.decode(block, raw=True)]
        except HPACKError:
            # hpack stops where the list grows too large; we go on for the sake of the table
            assert head["fault"] in ("hpack", "fields_large"), block.hex()
            return
        if head["fault"] == "hpack":
            # stricter: more than two size updates, integers of more than four bytes
            updates = [byte for byte in block[:12] if byte & 0xE0 == 0x20]
            assert len(updates) > 1 or b"\x80\x80\x80" in block or b"\xff\xff\xff" in block or block.count(b"\x80") > 2, block.hex()
            return
        if head["fault"] is None:
            assert [(n, v) for n, v, _, _ in head["fields"]] == pairs
        else:
            assert head["fault"] in ("field_name", "field_value", "h2_pseudo", "fields_large")
        assert reader.table() == [(bytes(n), bytes(v)) for n, v in other.header_table.dynamic_entries]
