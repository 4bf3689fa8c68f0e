"""h2spec in strict mode, in the clear and over TLS, against a gateway with an origin. Built from its Go module (tools/h2spec)."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_process import ROOT, Gateway, Origin
from pki import Authority, write_pair

GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
pytestmark = pytest.mark.skipif(GO is None, reason="no Go toolchain here, of which h2spec is built")

MODULE = ROOT / "tools" / "h2spec"
PROGRAM = ROOT / "build" / "h2spec" / "h2spec"
CONFIG = """\
accessLog: {{format: off}}
listeners:
  - {{name: clear, address: "127.0.0.1:0"}}
  - name: secure
    address: 127.0.0.2:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: web.crt, key: web.key}}]}}
routes:
  - {{name: all, rules: [{{backendRefs: [{{name: app}}]}}]}}
clusters:
  - {{name: app, endpoints: ["{origin}"]}}
"""


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The program; built once, and again when its versions change."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < (MODULE / "go.sum").stat().st_mtime:
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        command = [str(GO), "build", "-o", str(PROGRAM), "github.com/summerwind/h2spec/cmd/h2spec"]
        built = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, timeout=300)
        assert built.returncode == 0, built.stderr
        PROGRAM.touch()
    return PROGRAM


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    place = tmp_path_factory.mktemp("h2spec")
    write_pair(place, "web", Authority().issue("127.0.0.2"))
    with Origin() as origin:
        (place / "gateway.yaml").write_text(CONFIG.format(origin=origin.address))
        with Gateway(place / "gateway.yaml", workers=1) as running:
            yield running


@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_every_case_of_h2spec_passes_in_strict_mode(h2spec: Path, gateway: Gateway, listener: str) -> None:
    before = gateway.serving()
    host, _, port = gateway.address(listener).rpartition(":")
    # A case that waits for an answer waits this long, in seconds: a loaded machine may need more than the usual two.
    command = [str(h2spec), "--strict", "--timeout", "15", "--host", host, "--port", port]
    if listener == "secure":
        command += ["--tls", "--insecure"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500)
    told = re.search(r"^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed$", run.stdout, re.M)
    assert told, run.stdout + run.stderr
    tests, passed, skipped, failed = map(int, told.groups())
    assert (failed, skipped) == (0, 0), run.stdout[run.stdout.find("Failures:") :]
    assert passed == tests >= 140
    print(told[0])
    # Nothing of it has hurt the one worker.
    assert gateway.serving() == before and gateway.stats()["totals"]["requests"] > 0
