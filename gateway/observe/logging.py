"""The log of the control plane and of the workers' shells: text or JSON lines on stderr, each with the tag of its module.

A module writes to `logging.getLogger("gateway.<its path>")`; the tag is what follows "gateway.". Facts that belong to a line are
passed as `extra={...}` and become fields of their own. `setup` is called once, by the main of a process; the level can change at
any time.
"""

from __future__ import annotations

import atexit
import json
import logging
from datetime import UTC, datetime
from typing import Final

from gateway.observe.access_log import LineWriter

ROOT: Final = "gateway"
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
FORMATS: Final = ("text", "json")
MAX_TEXT: Final = 8192
"""Characters of a message or of a field's value; the rest is cut."""

_STANDARD = frozenset((*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime", "taskName"))


def escape(text: str) -> str:
    """The text without anything that a terminal or a line-based tool would act on, cut to a bound.

    Text of peers, files and API objects gets into log lines: line ends, escape sequences and marks that turn the direction of
    writing are shown as escapes.
    """
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def tag_of(name: str) -> str:
    """The tag of a logger's name: the module's path in `gateway`, or the name of a library."""
    return name.removeprefix(ROOT + ".")


def _facts_of(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD and not key.startswith("_")}


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`time LEVEL process tag: message key=value`; a traceback follows on indented lines."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = f"{process} " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_time_of(record)} {record.levelname:<7} {self._process}{tag_of(record.name)}: {escape(record.getMessage())}"]
        for key, value in _facts_of(record).items():
            text = escape(str(value))
            parts.append(f"{key}={json.dumps(text, ensure_ascii=False) if ' ' in text or not text else text}")
        line = " ".join(parts)
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {escape(row)}" for row in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, process, tag, message, then the facts, then the exception."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, object] = {"time": _time_of(record), "level": record.levelname.lower()}
        if self._process:
            row["process"] = self._process
        row["tag"] = tag_of(record.name)
        row["message"] = record.getMessage()[:MAX_TEXT]
        for key, value in _facts_of(record).items():
            if value is None or isinstance(value, bool | int | float):
                row.setdefault(key, value)
            else:
                row.setdefault(key, str(value)[:MAX_TEXT])
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        # ASCII: every control character and every other surprise is an escape then.
        return json.dumps(row, ensure_ascii=True)


class WriterHandler(logging.Handler):
    """Hands lines to a LineWriter, so that a stderr that nobody reads never stops the loop that logs."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            self.handleError(record)
            return
        if record.levelno >= logging.CRITICAL:
            # Often the last line of a process.
            self.writer.flush()

    def close(self) -> None:
        self.writer.close()
        super().close()


_handler: WriterHandler | None = None


def setup(level: str = "info", *, format: str = "text", process: str = "", path: str = "stderr") -> WriterHandler:
    """Makes this process log to stderr (or a file), from the given level on. process: shown in each line, for example "worker[0]".

    Called again, it replaces what it had set up. Libraries are heard from warnings on. Raises ValueError for an unknown level or
    format.
    """
    global _handler
    if format not in FORMATS:
        raise ValueError(f"unknown log format {format!r}; one of {', '.join(FORMATS)}")
    number_of(level)
    writer = LineWriter(path, max_queued=1 << 20, name="log", may_complain=False)
    handler = WriterHandler(writer)
    handler.setFormatter(JsonFormatter(process) if format == "json" else TextFormatter(process))
    root = logging.getLogger()
    if _handler is None:
        atexit.register(close)
    else:
        root.removeHandler(_handler)
        _handler.close()
    _handler = handler
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    set_level(level)
    return handler


def close() -> None:
    """Writes what is queued and takes the handler away."""
    global _handler
    if _handler is not None:
        logging.getLogger().removeHandler(_handler)
        _handler.close()
        _handler = None


def number_of(level: str) -> int:
    """The number of a level's name. Raises ValueError that names the levels."""
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; one of {', '.join(LEVELS)}")
    return logging.getLevelNamesMapping()[level.upper()]


def set_level(level: str, tag: str = "") -> None:
    """Logs from this level on; with a tag, only for that module and those below it. Raises ValueError for an unknown level."""
    logging.getLogger(f"{ROOT}.{tag}" if tag else ROOT).setLevel(number_of(level))


def levels() -> dict[str, str]:
    """The level of each tag that has one of its own; "" is that of all others."""
    found = {"": logging.getLevelName(logging.getLogger(ROOT).getEffectiveLevel()).lower()}
    for name, logger in sorted(logging.Logger.manager.loggerDict.items()):
        if name.startswith(ROOT + ".") and isinstance(logger, logging.Logger) and logger.level:
            found[tag_of(name)] = logging.getLevelName(logger.level).lower()
    return found
