"""The scalars of the configuration language: durations, periods and sizes, and the base of every struct.

Durations and Periods are ints of milliseconds, a Size is one of bytes. All are written back as the text that a person would write.
"""

import re
from typing import Annotated, Any

import msgspec


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Base of every struct of the configuration: frozen, camelCase outside, unknown keys refused."""


def Doc(text: str) -> msgspec.Meta:
    """Description of a key, for the JSON Schema."""
    return msgspec.Meta(description=text)


_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}")
_DURATION_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_DURATION_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
MONTH = -1
_PERIODS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "month": MONTH}
_SIZE = re.compile(r"([0-9]{1,18})(KiB|MiB|GiB)?")
_SIZE_UNITS = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Duration(int):
    """Milliseconds. Written as a Gateway API duration (GEP-2257): 10s, 1m30s, 500ms; at most four parts of at most five digits."""

    @classmethod
    def parse(cls, value: object) -> "Duration":
        """From the text of a file; ValueError says what is wrong with it."""
        if isinstance(value, str) and _DURATION.fullmatch(value):
            return cls(sum(int(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(value)))
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(f"a duration needs a unit: '{value}s' or '{value}ms'?")
        raise ValueError(f"{_shown(value)} is not a duration; write it as 10s, 1m30s or 500ms")

    def text(self) -> str:
        """The shortest Gateway API text for it."""
        rest, parts = int(self), []
        for unit, size in _DURATION_UNITS.items():
            count, rest = divmod(rest, size)
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts) or "0s"

    __str__ = text

    def __repr__(self) -> str:
        return f"Duration({self.text()!r})"


class Period(Duration):
    """Milliseconds that something is counted for: a Duration, or one of the words second, minute, hour, day, month.

    A month has no length of its own: it is MONTH, which is less than 0, and runs from its first day to the next one's, in UTC.
    """

    @classmethod
    def parse(cls, value: object) -> "Period":
        """From the text of a file; ValueError says what is wrong with it."""
        if isinstance(value, str) and value in _PERIODS:
            return cls(_PERIODS[value])
        try:
            return cls(int(super().parse(value)))
        except ValueError as flaw:
            raise ValueError(f"{flaw}; or one of the words {', '.join(_PERIODS)}") from None

    def text(self) -> str:
        """The shortest text for it."""
        return "month" if self < 0 else super().text()

    __str__ = text

    def __repr__(self) -> str:
        return f"Period({self.text()!r})"


class Size(int):
    """Bytes. Written as a plain number or with KiB, MiB or GiB."""

    @classmethod
    def parse(cls, value: object) -> "Size":
        """From the text of a file; ValueError says what is wrong with it."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value)
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match:
            return cls(int(match[1]) * _SIZE_UNITS[match[2]])
        raise ValueError(f"{_shown(value)} is not a size; write it as 65536, 64KiB, 1MiB or 1GiB")

    def text(self) -> str:
        """With the largest unit that loses nothing."""
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _SIZE_UNITS[unit] == 0:
                return f"{self // _SIZE_UNITS[unit]}{unit}"
        return int.__repr__(self)

    __str__ = text

    def __repr__(self) -> str:
        return f"Size({self.text()!r})"


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)


def decode_hook(type_: type, value: Any) -> Any:
    """msgspec's dec_hook for the scalars of this module."""
    if type_ is Duration or type_ is Size or type_ is Period:
        return type_.parse(value)
    raise NotImplementedError(f"no scalar of this language: {type_!r}")


def encode_hook(value: Any) -> Any:
    """msgspec's enc_hook for the scalars of this module."""
    if isinstance(value, Duration | Size):
        return value.text()
    raise NotImplementedError(f"no scalar of this language: {type(value)!r}")


def schema_hook(type_: type) -> dict[str, Any]:
    """msgspec's schema_hook for the scalars of this module."""
    if type_ is Duration:
        return {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$", "examples": ["10s", "1m30s", "500ms"]}
    if type_ is Period:
        words = {"enum": list(_PERIODS)}
        return {"anyOf": [words, {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}], "examples": ["1s", "minute"]}
    if type_ is Size:
        return {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,18}(KiB|MiB|GiB)?$"}],
            "examples": [65536, "64KiB", "1MiB"],
        }
    raise NotImplementedError(f"no scalar of this language: {type_!r}")


PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]
"""A TCP port."""
