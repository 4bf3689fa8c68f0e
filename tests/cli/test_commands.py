"""The commands as a shell sees them: output, exit codes, help, and what happens without the compiled core."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_process import ROOT, command
from pki import write_files_for

import gateway

GOOD = """\
listeners: [{name: web, port: 8080}]
routes:
  - name: shop
    hostnames: [shop.test]
    rules:
      - matches: [{path: {type: PathPrefix, value: /api}, method: GET, headers: [{name: x-canary, value: "1"}]}]
        backendRefs: [{name: one, weight: 9}, {name: two}]
      - matches: [{path: {type: Exact, value: /old}}]
        filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: two}]
clusters:
  - {name: one, endpoints: ["10.0.0.1:80"]}
  - {name: two, endpoints: ["10.0.0.2:80"]}
"""
COMMANDS = ("run", "demo", "check", "route", "routes", "schema", "top")


def isthmus(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace("backendRefs: [{name: two}]", "backendRef: [{name: two}]"))
    return str(path)


# help and usage


def test_help_lists_the_commands_and_comes_at_once() -> None:
    # CPU time, the best of some tries: the machine may be busy, the command must not be slow by itself.
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = isthmus("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert shown.returncode == 0 and all(name in shown.stdout for name in COMMANDS)
    assert min(took) < 0.5


def test_nothing_heavy_is_loaded_for_help() -> None:
    script = "import sys, gateway.cli.app; print([m for m in ('aiohttp', 'uvloop', 'yaml', 'watchfiles') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_itself(name: str) -> None:
    for flag in ("--help", "-h"):
        shown = isthmus(name, flag)
        assert shown.returncode == 0 and "Usage" in shown.stdout and name in shown.stdout


def test_the_version() -> None:
    assert isthmus("--version").stdout == f"isthmus {gateway.__version__}\n"


@pytest.mark.parametrize(
    "args",
    [
        ("nothing",),
        ("run",),
        ("run", "--config"),
        ("check",),
        ("route", "--config", "x.yaml"),
        ("route", "--config", "x.yaml", "--host", "a", "--header", "nocolon"),
        ("run", "--config", "x.yaml", "--workers", "0"),
        ("run", "--config", "x.yaml", "--log-level", "loud"),
    ],
)
def test_wrong_usage_is_2(args: tuple[str, ...]) -> None:
    ended = isthmus(*args)
    assert ended.returncode == 2 and ended.stderr and "Traceback" not in ended.stderr


# check


def test_check_of_a_good_file(good: str) -> None:
    ended = isthmus("check", good)
    assert (ended.returncode, ended.stdout) == (0, f"{good}: good\n")
    ended = isthmus("check", "--json", good)
    assert ended.returncode == 0 and json.loads(ended.stdout) == []


def test_check_of_a_bad_file_names_line_key_and_the_nearest(bad: str) -> None:
    ended = isthmus("check", bad)
    assert ended.returncode == 1
    assert f"{bad}:11:" in ended.stdout and "backendRef" in ended.stdout and "'backendRefs'" in ended.stdout
    ended = isthmus("check", "--json", bad)
    (row,) = json.loads(ended.stdout)
    assert ended.returncode == 1 and row["line"] == 11 and row["severity"] == "error" and row["text"].startswith(bad)


def test_check_of_a_missing_file(tmp_path: Path) -> None:
    ended = isthmus("check", str(tmp_path / "none.yaml"))
    assert ended.returncode == 1 and "none.yaml" in ended.stdout and "Traceback" not in ended.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_check_takes_every_configuration_of_the_house(path: Path, tmp_path: Path) -> None:
    write_files_for(path.read_text(), tmp_path)
    ended = isthmus("check", shutil.copy(path, tmp_path))
    assert ended.returncode == 0, ended.stdout


def test_check_looks_at_certificates_too(tmp_path: Path) -> None:
    text = (ROOT / "config" / "reference.yaml").read_text()
    path = tmp_path / "a.yaml"
    path.write_text(text)
    write_files_for(text, tmp_path)
    (tmp_path / "certs" / "example.key").write_bytes((tmp_path / "certs" / "me.key").read_bytes())
    ended = isthmus("check", str(path))
    assert ended.returncode == 1 and "certs/example.key: is not the key of the certificate; this pair is left out" in ended.stdout
    assert "PRIVATE" not in ended.stdout + ended.stderr


# route, routes, schema


def test_route_says_which_rule_answers_and_why_not_the_others(good: str) -> None:
    ended = isthmus("route", "--config", good, "--host", "shop.test", "--path", "/api/x", "--header", "x-canary: 1")
    assert ended.returncode == 0 and "rule 0 of route 'shop'" in ended.stdout
    assert "shop[2]" in ended.stdout and "shop[1]" in ended.stdout
    ended = isthmus("route", "--config", good, "--host", "shop.test", "--path", "/api/x", "--json")
    found = json.loads(ended.stdout)
    assert ended.returncode == 0 and found["winner"]["rule"] == 2 and found["outcome"] == "answer"
    assert len([each for each in found["candidates"] if not each["wins"]]) == 2
    ended = isthmus("route", "--config", good, "--host", "shop.test", "--path", "/old")
    assert ended.returncode == 0 and "redirect   301" in ended.stdout


def test_route_without_an_answer_is_1(good: str, bad: str) -> None:
    ended = isthmus("route", "--config", good, "--host", "other.test", "--path", "/")
    assert ended.returncode == 1 and "404" in ended.stdout
    ended = isthmus("route", "--config", good, "--host", "shop.test", "--port", "81")
    assert ended.returncode == 1 and "8080" in ended.stdout


def test_routes_lists_hosts_matches_and_backends(good: str) -> None:
    ended = isthmus("routes", "--config", good)
    assert ended.returncode == 0
    assert "shop.test" in ended.stdout and "one x9, two x1" in ended.stdout and "redirect 301" in ended.stdout
    assert "GET PathPrefix /api header x-canary=1" in ended.stdout
    rows = json.loads(isthmus("routes", "--config", good, "--json").stdout)
    assert [row["rule"] for row in rows] == [0, 1, 2]
    assert rows[0]["backends"] == [{"cluster": "one", "weight": 9}, {"cluster": "two", "weight": 1}]


def test_routes_of_a_file_that_cannot_be_used_is_1(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("routs: []\n")
    ended = isthmus("routes", "--config", str(path))
    assert ended.returncode == 1 and "'routes'" in ended.stderr


def test_a_reader_that_has_had_enough_is_no_traceback(good: str) -> None:
    shell = f"{' '.join(command('routes', '--config', good, '--json'))} | head -c 1 >/dev/null"
    ended = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in ended.stderr and "Exception" not in ended.stderr


def test_the_schema_is_json_schema() -> None:
    shown = json.loads(isthmus("schema").stdout)
    assert shown["$schema"].startswith("https://json-schema.org/") and "listeners" in shown["properties"]


# top


def test_top_without_a_gateway_is_1_and_one_line() -> None:
    ended = isthmus("top", "--once", "--admin", "127.0.0.1:1")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "no gateway answers" in ended.stderr


# without the core


@pytest.mark.parametrize("module", ["gateway._core.engine", "gateway._core.snapshot", "gateway._core.counters"])
def test_a_missing_core_is_one_line_with_the_build_command(module: str, good: str) -> None:
    script = (
        "import importlib.abc, sys\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        f"sys.argv = ['isthmus', 'run', '--config', {good!r}, '--admin', '127.0.0.1:0']\n"
        "from gateway.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "make build" in ended.stderr and "gateway._core" in ended.stderr


def test_the_demo_that_is_shipped_is_the_one_in_config() -> None:
    assert (ROOT / "gateway/cli/demo/demo.yaml").read_bytes() == (ROOT / "config/demo.yaml").read_bytes()
