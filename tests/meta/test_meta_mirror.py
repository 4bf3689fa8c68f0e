"""Tests stand beside sources: whoever opens a source finds the file that tests it, by its name or in the list below."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
GATEWAY = ROOT / "gateway"
CORE = GATEWAY / "_core"

# Source files that another test file than the one of their name tests, and why.
WIRE = "wire/test_wire_framing.py"  # the path is tested whole, by byte scripts against a running engine; see the folder
TESTED_BY = {
    "gateway/__main__.py": "e2e/test_process.py",
    "gateway/_core/acceptor.pyx": "wire/test_wire_addresses.py",
    "gateway/_core/cors.pyx": "wire/test_wire_cors.py",
    "gateway/_core/dial.pyx": "wire/test_wire_tls.py",
    "gateway/_core/doorway.pyx": "wire/test_wire_tls.py",
    "gateway/_core/downstream.pyx": WIRE,
    "gateway/_core/exchange.pyx": WIRE,
    "gateway/_core/h2probe.pyx": "core/test_h2_session.py",  # it is the tests' door into the session
    "gateway/_core/h2test.pyx": "core/test_hpack.py",  # it is the tests' door into the codecs of HTTP/2
    "gateway/_core/affinity.pyx": "e2e/test_balancing.py",
    "gateway/_core/limit_check.pyx": "wire/test_wire_rate_store.py",
    "gateway/_core/limit_top.pyx": "wire/test_wire_top_keys.py",
    "gateway/_core/grpc.pyx": "wire/test_wire_h2.py",
    "gateway/_core/grpc_web.pyx": "wire/test_wire_grpc_web.py",
    "gateway/_core/h2_downstream.pyx": "wire/test_wire_h2.py",
    "gateway/_core/h2_ledger.pyx": "core/test_h2_floods.py",
    "gateway/_core/h2_sink.pyx": "core/test_h2_session.py",
    "gateway/_core/h2_stream.pyx": "core/test_h2_send.py",
    "gateway/_core/h2_upstream.pyx": "wire/test_wire_h2.py",
    "gateway/_core/mirror.pyx": "wire/test_wire_mirror.py",
    "gateway/_core/websocket.pyx": "wire/test_wire_h2.py",
    "gateway/_core/onlooker.pyx": "wire/test_wire_tunnel.py",
    "gateway/_core/pathtest.pyx": "core/test_buf.py",  # the tests' door into the path
    "gateway/_core/selftest.pyx": "core/test_h1_parse.py",  # it is the tests' door into the codecs
    "gateway/_core/session.pyx": "e2e/test_sessions.py",
    "gateway/_core/tls.pyx": "wire/test_wire_tls.py",
    "gateway/_core/upstream.pyx": WIRE,
    "gateway/admin/state.py": "admin/test_server.py",
    "gateway/cli/app.py": "cli/test_commands.py",
    "gateway/cli/check.py": "cli/test_commands.py",
    "gateway/cli/demo/__init__.py": "e2e/test_process.py",
    "gateway/cli/demo/origin.py": "e2e/test_process.py",
    "gateway/cli/route.py": "cli/test_commands.py",
    "gateway/cli/routes.py": "cli/test_commands.py",
    "gateway/cli/schema.py": "cli/test_commands.py",
    "gateway/cli/sources.py": "cli/test_objects.py",
    "gateway/cli/top.py": "cli/test_commands.py",
    "gateway/control/compile_limits.py": "control/test_control_limits.py",
    "gateway/control/publish.py": "control/test_reconciler.py",
    "gateway/model/listener.py": "model/test_model_config.py",
    "gateway/model/live.py": "sources/kubernetes/test_live.py",
    "gateway/model/policy.py": "model/test_model_config.py",
    "gateway/model/route.py": "model/test_model_decode.py",
    "gateway/model/schema.py": "model/test_model_config.py",
    "gateway/model/served.py": "model/test_model_validate.py",
    "gateway/model/tls.py": "model/test_model_config.py",
    **{
        f"gateway/sources/kubernetes/{name}.py": "sources/kubernetes/test_kinds.py"
        for name in (
            "backend_tls_policy", "config_map", "endpoint_slice", "gateway", "gateway_class", "grpc_route", "http_route", "ingress",
            "listener_set", "namespace", "reference_grant", "secret", "service", "tcp_route", "tls_route",
        )
    },
    "gateway/sources/kubernetes/attach.py": "sources/kubernetes/test_conformance_http.py",
    "gateway/sources/kubernetes/backends.py": "sources/kubernetes/test_conformance_http.py",
    "gateway/sources/kubernetes/listeners.py": "sources/kubernetes/test_conformance_gateway.py",
    "gateway/sources/kubernetes/options.py": "sources/kubernetes/test_translate.py",
    "gateway/sources/kubernetes/pairs.py": "sources/kubernetes/test_conformance_gateway.py",
    "gateway/sources/kubernetes/report.py": "sources/kubernetes/test_conformance_gateway.py",
    "gateway/sources/kubernetes/rules.py": "sources/kubernetes/test_conformance_http.py",
    "gateway/sources/kubernetes/view.py": "sources/kubernetes/test_translate.py",
    "gateway/supervisor/main.py": "e2e/test_process.py",
    "gateway/worker/__main__.py": "e2e/test_process.py",
    "gateway/worker/limits/shard.py": "worker/limits/test_link.py",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def has_own_test(path: Path, tests: set[str]) -> bool:
    """gateway/PACKAGE/NAME.py is tested by test_NAME.py or test_PACKAGE_NAME.py, or by one of these with _WHAT behind."""
    stem = path.parent.name if path.name == "__init__.py" else path.stem
    wanted = (f"test_{stem}", f"test_{path.parent.name.strip('_')}_{stem}")
    return any(test == want or test.startswith(f"{want}_") for test in tests for want in wanted)


def test_every_source_has_its_test_file() -> None:
    tests = {path.stem for path in TESTS.rglob("test_*.py")}
    lacking = []
    for path in sorted([*GATEWAY.rglob("*.py"), *CORE.glob("*.pyx")]):
        is_mark_of_a_package = path.name == "__init__.py" and len(path.read_text().splitlines()) < 30
        if not is_mark_of_a_package and not has_own_test(path, tests) and name(path) not in TESTED_BY:
            lacking.append(name(path))
    assert not lacking


def test_the_list_is_not_stale() -> None:
    for source, test in TESTED_BY.items():
        assert (ROOT / source).is_file(), source
        assert (TESTS / test).is_file(), test
