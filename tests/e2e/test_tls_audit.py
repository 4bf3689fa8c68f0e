"""testssl.sh on a listener, in the quick form of `make tls-audit`, and that what is weak would not pass."""

import runpy
import shutil
from pathlib import Path

import pytest
from gateway_process import ROOT
from tls_peers import assert_nothing_raised

TOOL = runpy.run_path(str(ROOT / "tools" / "tls_audit.py"))
PROGRAM = shutil.which("testssl") or shutil.which("testssl.sh")


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason=TOOL["MISSING"])
def test_testssl_finds_nothing_weak(tmp_path: Path) -> None:
    with TOOL["audited"](tmp_path) as gateway:
        rows = TOOL["examine"](PROGRAM, "usual", gateway.address("usual"), tmp_path, TOOL["QUICK"])
        assert_nothing_raised(gateway)
    assert not [row for row in rows if row.is_weak], "\n".join(TOOL["table"](rows))
    found = {row.id: row for row in rows}
    # It was this listener that was looked at, and it was looked at well.
    assert found["TLS1_2"].severity == found["TLS1_3"].severity == "OK" and found["TLS1_1"].finding == "not offered"
    assert {row.finding for row in rows if row.id.startswith("OCSP_stapling")} == {"offered"}
    assert {"RSA 2048 bits", "EC 256 bits"} <= {row.finding for row in rows if row.id.startswith("cert_keySize")}


@pytest.mark.parametrize(
    ("id_", "severity", "is_weak"),
    [
        ("TLS1", "LOW", True),
        ("BEAST", "MEDIUM", True),
        ("cert_signatureAlgorithm <cert#1>", "HIGH", True),
        ("heartbleed", "CRITICAL", True),
        ("scanProblem", "FATAL", True),
        ("secure_renego", "WARN", True),
        ("TLS1_3", "OK", False),
        ("cipher_negotiated", "INFO", False),
        ("cert_revocation <cert#2>", "HIGH", False),
    ],
)
def test_only_what_is_named_with_a_reason_may_be_low_or_worse(id_: str, severity: str, is_weak: bool) -> None:
    row = TOOL["Row"]("usual", id_, severity, "what was found")
    assert row.is_weak is is_weak
    (counts, *told) = TOOL["table"]([row])
    assert counts == f"usual    {severity} 1"
    assert [line.split()[0] for line in told] == (["WEAK"] if is_weak else [] if severity in ("OK", "INFO") else ["expected"])


def test_a_run_that_did_not_finish_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "testssl").write_text("#!/bin/sh\necho boom\nexit 1\n")
    (tmp_path / "testssl").chmod(0o755)
    with pytest.raises(RuntimeError, match=r"did not finish on usual \(1\):\nboom"):
        TOOL["examine"](str(tmp_path / "testssl"), "usual", "127.0.0.1:0", tmp_path, ())
