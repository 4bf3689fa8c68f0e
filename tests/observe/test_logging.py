"""The log of the control plane: lines that tell who, when and what, and that nobody else can write."""

import json
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.observe import logging as ours

GATEWAY = Path(ours.__file__).parents[1]
EVIL = "a\r\nforged line\x1b[2J\x00\u202e\x9b31m\u2028"
supervisor = logging.getLogger("gateway.supervisor.workers")


@pytest.fixture
def lines(tmp_path):
    """Sets logging up to a file and reads the lines back; afterwards everything is as before."""
    path = tmp_path / "log"
    root = logging.getLogger()
    before = root.level, logging.getLogger("gateway").level

    def start(level="info", **options):
        handler = ours.setup(level, path=str(path), **options)

        def read():
            assert handler.writer.flush(10)
            return path.read_text().splitlines()

        return read

    yield start
    ours.close()
    logging.captureWarnings(False)
    root.setLevel(before[0])
    logging.getLogger("gateway").setLevel(before[1])
    for name in ("gateway.supervisor", "gateway.worker"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_text_line_has_time_level_process_tag_and_facts(lines):
    read = lines(process="worker[3]")
    supervisor.info("worker %d is up", 3, extra={"revision": 7, "reason": "two words", "empty": ""})
    (line,) = read()
    stamp, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()) < 60
    assert rest == 'INFO    worker[3] supervisor.workers: worker 3 is up revision=7 reason="two words" empty=""'


def test_a_json_line_has_the_same_as_members(lines):
    read = lines(format="json", process="supervisor")
    facts = {"status": 9, "address": Path("/x"), "ratio": 0.5, "is_last": True, "time": "forged"}
    supervisor.warning("worker %d died", 3, extra=facts)
    (line,) = read()
    row = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["time"])
    facts |= {"address": "/x", "time": row["time"]}
    assert row == {"level": "warning", "process": "supervisor", "tag": "supervisor.workers", "message": "worker 3 died"} | facts


@pytest.mark.parametrize("format", ours.FORMATS)
def test_no_text_of_others_can_end_a_line_or_reach_a_terminal(lines, format):
    read = lines(format=format)
    supervisor.error("refused %s", EVIL, extra={"value": EVIL})
    (line,) = read()
    assert line.isprintable()
    if format == "json":
        assert json.loads(line)["value"] == EVIL


@pytest.mark.parametrize("format", ours.FORMATS)
def test_long_texts_are_cut(lines, format):
    read = lines(format=format)
    supervisor.error("m" * 100_000, extra={"value": "v" * 100_000})
    (line,) = read()
    assert ours.MAX_TEXT < len(line) < 2 * ours.MAX_TEXT + 300


def test_a_traceback_is_shown_and_cannot_forge_lines(lines):
    read = lines()
    try:
        raise ValueError(EVIL)
    except ValueError:
        supervisor.exception("it broke")
    first, *trace = read()
    assert first.endswith("supervisor.workers: it broke")
    assert any("ValueError" in row for row in trace)
    assert all(row.startswith("    ") and row.isprintable() for row in trace)


def test_a_traceback_is_a_member_in_json(lines):
    read = lines(format="json")
    try:
        raise ValueError(EVIL)
    except ValueError:
        supervisor.exception("it broke")
    (line,) = read()
    assert "ValueError" in json.loads(line)["exception"]


def test_a_text_that_is_no_unicode_does_not_stop_the_log(lines):
    read = lines()
    # pytest keeps the records of a test too, and cannot send such a text from one of its processes to another
    others = [handler for handler in logging.getLogger().handlers if type(handler).__module__ == "_pytest.logging"]
    for handler in others:
        logging.getLogger().removeHandler(handler)
    supervisor.error("path %s", b"/\xff".decode("utf-8", "surrogateescape"))
    for handler in others:
        logging.getLogger().addHandler(handler)
    (line,) = read()
    assert line.endswith("path /\\udcff")


def test_the_level_changes_at_run_time_and_for_one_tag(lines):
    read = lines("warning")
    supervisor.info("1")
    ours.set_level("info")
    supervisor.info("2")
    ours.set_level("error", "supervisor")
    supervisor.warning("3")
    logging.getLogger("gateway.worker").warning("4")
    ours.set_level("debug", "worker")
    logging.getLogger("gateway.worker.swap").debug("5")
    assert [line[-1] for line in read()] == ["2", "4", "5"]
    assert ours.levels() == {"": "info", "supervisor": "error", "worker": "debug"}


@pytest.mark.parametrize("level", ["loud", "", "10"])
def test_an_unknown_level_is_refused_with_the_known_ones(level):
    with pytest.raises(ValueError, match="debug, info, warning, error, critical"):
        ours.set_level(level)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="text, json"):
        ours.setup(format="xml", path=str(tmp_path / "log"))


def test_libraries_are_heard_from_warnings_on(lines):
    read = lines("debug")
    logging.getLogger("asyncio").info("quiet")
    logging.getLogger("asyncio").warning("slow")
    (line,) = read()
    assert line.endswith("asyncio: slow")


def test_setting_up_twice_writes_every_line_once(lines):
    lines()
    read = lines()
    supervisor.info("once")
    assert len(read()) == 1


def test_a_log_call_that_is_wrong_does_not_stop_the_program(lines, capsys):
    read = lines()
    # Straight to our handler: pytest's own raises.
    (ours_alone,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, ours.WriterHandler)]
    ours_alone.handle(logging.LogRecord("gateway.worker", logging.INFO, "", 0, "%d", ("no number",), None))
    supervisor.info("goes on")
    assert len(read()) == 1
    assert "no number" in capsys.readouterr().err


def test_stderr_gets_the_last_words_of_a_process():
    program = (
        "import logging, os\n"
        "from gateway.observe import logging as ours\n"
        "ours.setup(process='worker[0]')\n"
        "logging.getLogger('gateway.worker').info('hello')\n"
        "logging.getLogger('gateway.worker').critical('cannot go on')\n"
        "os._exit(70)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 70
    words = [" ".join(line.split()[1:]) for line in done.stderr.decode().splitlines()]
    assert words == ["INFO worker[0] worker: hello", "CRITICAL worker[0] worker: cannot go on"]


def test_at_exit_everything_queued_is_written():
    program = (
        "import logging\n"
        "from gateway.observe import logging as ours\n"
        "ours.setup()\n"
        "for i in range(500): logging.getLogger('gateway.worker').info('line %d', i)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert len(done.stderr.splitlines()) == 500


def test_every_logger_of_the_gateway_has_the_tag_of_a_module():
    wrong = []
    for path in GATEWAY.rglob("*.py"):
        for name in re.findall(r"getLogger\(\s*[\"'](gateway[\w.]*)[\"']\s*\)", path.read_text()):
            place = GATEWAY.joinpath(*name.split(".")[1:])
            if not place.is_dir() and not place.with_suffix(".py").is_file():
                wrong.append(f"{path.relative_to(GATEWAY)}: {name}")
    assert wrong == []
