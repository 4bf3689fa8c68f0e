"""Rules about the tests themselves: they wait for facts, not for time, and take the ports that the kernel gives."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# Where a test may sleep, and why: polling loops with a deadline, and origins that are slow on purpose.
MAY_SLEEP = {
    "lib/until.py": "the one polling loop of the tests, with a deadline",
}
# Calls of the network whose port must come from the kernel or from a fixture.
NETWORK = {
    "bind",
    "connect",
    "connect_ex",
    "create_server",
    "create_connection",
    "start_server",
    "open_connection",
    "HTTPConnection",
    "HTTPSConnection",
    "sock_connect",
    "TCPSite",
    "run_app",
}


def trees() -> list[tuple[str, ast.Module]]:
    return [(path.relative_to(TESTS).as_posix(), ast.parse(path.read_text())) for path in sorted(TESTS.rglob("*.py"))]


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


def literal_ports(node: ast.Call) -> list[int]:
    """Whole numbers that stand where a port does: a port= argument, the second of a pair, the second argument."""
    given = [keyword.value for keyword in node.keywords if keyword.arg == "port"] + node.args[1:2]
    for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
        if isinstance(value, ast.Tuple) and len(value.elts) >= 2:
            given.append(value.elts[1])
    return [value.value for value in given if isinstance(value, ast.Constant) and type(value.value) is int and value.value > 0]


def test_the_reader_of_this_test_reads() -> None:
    text = "s.bind(('127.0.0.1', 80))\ns.bind(('127.0.0.1', 0))\nHTTPConnection(h, 81, timeout=5)\nopen_connection(host=h, port=82)"
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert sorted(port for call in calls if called(call) in NETWORK for port in literal_ports(call)) == [80, 81, 82]


def test_no_test_sleeps() -> None:
    """sleep(0), which only lets others run, is none."""
    wrong = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) == "sleep" and file not in MAY_SLEEP:
                first = node.args[0] if node.args else None
                if not (isinstance(first, ast.Constant) and first.value == 0):
                    wrong.append(f"{file}:{node.lineno}")
    assert not wrong


def test_no_test_brings_its_own_port() -> None:
    wrong = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) in NETWORK and literal_ports(node):
                wrong.append(f"{file}:{node.lineno}")
    assert not wrong
