"""The configurations that the benchmark gives to ours are good ones."""

from pathlib import Path

from gateway.sources.files import load
from perf.gateways import Origin, fill
from perf.routes import RULES, many_routes, write_config
from perf.tls import make_certificate


def test_the_gateway_column_loads_without_a_problem(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    ports = {"port": 8080, "tls": 8443, "h2c": 8081, "h2s": 8444, "admin": 9901, "origin": 9001, "upload": 9002, "h2origin": 9003}
    path = fill("isthmus.yaml", tmp_path / "isthmus.yaml", run=tmp_path, **ports)
    loaded = load(path)
    assert not loaded.problems and loaded.config is not None
    assert [listener.name for listener in loaded.config.listeners] == ["web", "web-tls", "h2c", "h2-tls"]


def test_many_routes_load_without_a_problem(tmp_path: Path) -> None:
    config = many_routes(20, port=8080, admin=9901, origin=Origin(9001, 9002))
    loaded = load(write_config(config, tmp_path / "many.yaml"))
    assert not loaded.problems and loaded.config is not None
    assert sum(len(route.rules) for route in loaded.config.routes) == 20 * RULES + 2
