"""Durations and sizes: what may be written, what it means, and how it is written back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.scalars import MONTH, Duration, Part, Period, Size, decode_hook, encode_hook


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("0s", 0), ("1h", 3_600_000), ("99999h", 359_996_400_000), ("1s1s", 2000)],
)
def test_a_duration_is_a_gateway_api_duration(text: str, milliseconds: int) -> None:
    assert Duration.parse(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["", "10", "10 s", "1.5s", "-1s", "100000s", "1h1m1s1ms1ms", "10S", "1d", "s", "10s\n", "\u0661s", None, True, 1.5, [], {}],
)
def test_everything_else_is_none(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        Duration.parse(text)


def test_a_duration_without_a_unit_is_told_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="needs a unit: '10s' or '10ms'"):
        Duration.parse(10)


@given(st.integers(min_value=0, max_value=99_999 * 3_600_000))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    assert Duration.parse(Duration(milliseconds).text()) == milliseconds


@pytest.mark.parametrize(
    ("value", "size"), [(0, 0), (65536, 65536), ("65536", 65536), ("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)]
)
def test_a_size_is_bytes_or_has_a_binary_unit(value: object, size: int) -> None:
    assert Size.parse(value) == size


@pytest.mark.parametrize("value", [-1, "-1", "1MB", "1 MiB", "1.5MiB", "1kib", "", None, True, 1.0, "9" * 19])
def test_every_other_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        Size.parse(value)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_size_survives_being_written(size: int) -> None:
    assert Size.parse(Size(size).text()) == size


def test_scalars_travel_through_a_struct_both_ways() -> None:
    class Pause(Part, frozen=True):
        longest_pause: Duration
        most_bytes: Size = Size(0)

    pause = msgspec.convert({"longestPause": "1m", "mostBytes": "1KiB"}, Pause, dec_hook=decode_hook)
    assert pause == Pause(longest_pause=Duration(60_000), most_bytes=Size(1024))
    assert msgspec.to_builtins(pause, enc_hook=encode_hook) == {"longestPause": "1m", "mostBytes": "1KiB"}
    assert repr(pause) == "Pause(longest_pause=Duration('1m'), most_bytes=Size('1KiB'))"


def test_the_hooks_know_no_other_type() -> None:
    for hook in (lambda: decode_hook(complex, 1), lambda: encode_hook(1j)):
        with pytest.raises(NotImplementedError):
            hook()


@pytest.mark.parametrize(
    ("text", "milliseconds", "shown"),
    [("second", 1000, "1s"), ("day", 86_400_000, "24h"), ("month", MONTH, "month"), ("90s", 90_000, "1m30s")],
)
def test_a_period_is_a_duration_or_one_of_the_calendar(text: str, milliseconds: int, shown: str) -> None:
    assert Period.parse(text) == milliseconds
    assert Period.parse(text).text() == shown
    assert Period.parse(shown) == milliseconds


@pytest.mark.parametrize("text", ["year", "Month", "", 10, None])
def test_every_other_period_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="or one of the words second, minute, hour, day, month"):
        Period.parse(text)
