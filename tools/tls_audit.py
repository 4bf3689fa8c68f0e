"""`make tls-audit`: what testssl.sh thinks of a gateway's HTTPS listeners; anything that it finds weak ends it with status 1.

A real gateway is started on loopback, with an ECDSA and an RSA certificate for one name, each with its stapled OCSP response, and
with two listeners: one with the defaults, one with TLS 1.3 alone. What testssl rates LOW or worse counts, and so does a check that
it could not make. What is let pass stands in EXPECTED, with the reason.

    python tools/tls_audit.py [--quick] [--keep DIRECTORY]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lib")]

from gateway_process import Gateway, Origin  # noqa: E402
from pki import Authority, days, write_pair  # noqa: E402

NAME = "audit.test"
MISSING = "testssl.sh is not here: apt-get install testssl.sh (Debian calls the command testssl)"
FINE = {"OK", "INFO", "DEBUG"}

EXPECTED = {
    "cert_revocation": "the test's authority has no server for lists or OCSP that a certificate could name",
    "cert_chain_of_trust": "the test's authority is in no system's bundle",
    "cert_trust": "the test's authority is in no system's bundle",
    "DNS_CAArecord": "the test's name is in no DNS",
    "sessionresumption_ticket": "its client leaves before a TLS 1.3 ticket comes; tests/e2e/test_tls_clients.py resumes",
}
"""What self-made certificates and testssl's own client cause: the finding's id without `<cert#1>`, and why."""

# As a careful operator writes a route: the two header findings of testssl are about sites, not about TLS.
CONFIG = """\
accessLog: {{format: off}}
listeners:
  - name: usual
    address: 127.0.0.1:0
    protocol: HTTPS
    tls:
      certificates: &both
        - {{cert: ecdsa.crt, key: ecdsa.key, ocsp: ecdsa.ocsp}}
        - {{cert: rsa.crt, key: rsa.key, ocsp: rsa.ocsp}}
  - {{name: newest, address: "127.0.0.2:0", protocol: HTTPS, tls: {{certificates: *both, minVersion: "1.3"}}}}
routes:
  - name: all
    rules:
      - filters:
          - type: ResponseHeaderModifier
            responseHeaderModifier:
              set:
                - {{name: Strict-Transport-Security, value: "max-age=31536000"}}
                - {{name: X-Content-Type-Options, value: nosniff}}
                - {{name: Content-Security-Policy, value: "default-src 'none'"}}
        backendRefs: [{{name: app}}]
clusters:
  - {{name: app, endpoints: ["{origin}"]}}
"""
# Everything about the protocol itself; the whole form adds every cipher on its own, implementation bugs and simulated clients.
QUICK = (
    "--protocols", "--standard", "--pfs", "--server-defaults", "--heartbleed", "--ccs", "--ticketbleed", "--renegotiation",
    "--compression",
)  # fmt: skip
WHOLE = ("--full",)


class Row(NamedTuple):
    """One finding of testssl."""

    listener: str
    id: str
    severity: str
    finding: str

    @property
    def excuse(self) -> str:
        return EXPECTED.get(self.id.partition(" ")[0], "")

    @property
    def is_weak(self) -> bool:
        return self.severity not in FINE and not self.excuse


@contextmanager
def audited(place: Path) -> Iterator[Gateway]:
    """A gateway with what is audited."""
    authority = Authority()
    (place / "ca.pem").write_bytes(authority.pem)
    for kind in ("ecdsa", "rsa"):
        leaf = authority.issue(NAME, rsa=kind == "rsa", common_name=NAME, not_before=days(-1), not_after=days(90))
        write_pair(place, kind, leaf)
        (place / f"{kind}.ocsp").write_bytes(authority.answer(leaf))
    with Origin() as origin:
        (place / "gateway.yaml").write_text(CONFIG.format(origin=origin.address))
        with Gateway(place / "gateway.yaml", workers=1) as gateway:
            yield gateway


def examine(program: str, listener: str, address: str, place: Path, checks: Iterable[str]) -> list[Row]:
    """Runs testssl on one address; its findings. Raises RuntimeError when it did not come to an end."""
    host, _, port = address.rpartition(":")
    found = place / f"{listener}.json"
    command = [
        program, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", host,
        "--add-ca", str(place / "ca.pem"), "--jsonfile", str(found), *checks, f"{NAME}:{port}",
    ]  # fmt: skip
    with (place / f"{listener}.txt").open("wb") as out:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=place, check=False)
    try:
        rows = [Row(listener, row["id"], row["severity"], row["finding"]) for row in json.loads(found.read_text())]
    except (OSError, ValueError) as error:
        rows, ended.returncode = [], ended.returncode or str(error)
    # The last finding is how long it took: one that is killed on its way has none.
    if not rows or rows[-1].id != "scanTime" or not any(row.id == "TLS1_3" for row in rows):
        told = (place / f"{listener}.txt").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"testssl did not finish on {listener} ({ended.returncode}):\n{told}")
    return rows


def table(rows: Iterable[Row]) -> Iterator[str]:
    """What is not fine, and how much is."""
    rows = list(rows)
    for listener in dict.fromkeys(row.listener for row in rows):
        counts = Counter(row.severity for row in rows if row.listener == listener)
        yield f"{listener:8} " + ", ".join(f"{severity} {count}" for severity, count in counts.most_common())
    for row in rows:
        if row.severity not in FINE:
            verdict = "WEAK" if row.is_weak else "expected"
            yield f"{verdict:8} {row.listener:8} {row.severity:8} {row.id:34} {row.excuse or row.finding}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="the protocol alone: no cipher by cipher, no simulated clients")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where testssl's reports (text and JSON) stay")
    options = parser.parse_args()
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if program is None:
        print(MISSING, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="isthmus-tls-audit-") as made:
        place = Path(made)
        rows: list[Row] = []
        try:
            with audited(place) as gateway:
                for listener in ("usual", "newest"):
                    print(f"testssl on {listener}, https://{gateway.address(listener)} ...", flush=True)
                    rows += examine(program, listener, gateway.address(listener), place, QUICK if options.quick else WHOLE)
                if "Traceback" in gateway.stderr:
                    print(gateway.stderr, file=sys.stderr)
                    return 1
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                for report in (*place.glob("*.json"), *place.glob("*.txt")):
                    shutil.copy(report, options.keep)
    print(*table(rows), sep="\n")
    weak = sum(row.is_weak for row in rows)
    print(f"{weak} of {len(rows)} findings are weak" if weak else f"nothing weak in {len(rows)} findings")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
