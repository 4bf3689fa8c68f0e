"""The files that a configuration names for TLS: found, checked, remembered; what is bad leaves the last good in use."""

import datetime
import logging
import os
from pathlib import Path

import pytest
from pki import Authority, chain_of, days, key_of, write_pair

from gateway.model.problem import Problem
from gateway.sources import certificates as module
from gateway.sources.certificates import Files, file_mark
from gateway.sources.files import Loaded, load

AUTHORITY = Authority()
ONE = AUTHORITY.issue("one.test")
TWO = AUTHORITY.issue("two.test", "*.two.test")
RSA = AUTHORITY.issue("one.test", rsa=True)
TEXT = """\
listeners:
  - name: web
    port: 8443
    protocol: HTTPS
    tls:
      certificates:
        - {cert: tls/one.crt, key: tls/one.key}
        - {cert: tls/two.crt, key: tls/two.key}
clusters:
  - name: app
    endpoints: ["app.test:443"]
    tls: {ca: tls/ca.crt, clientCertificate: {cert: tls/two.crt, key: tls/two.key}}
"""
GONE = "cannot be read: No such file or directory"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with what TEXT names."""
    write_pair(tmp_path / "tls", "one", ONE)
    write_pair(tmp_path / "tls", "two", TWO)
    (tmp_path / "tls" / "ca.crt").write_bytes(AUTHORITY.pem)
    (tmp_path / "a.yaml").write_text(TEXT)
    return tmp_path


def look(base: Path, known: Loaded | None = None, text: str | None = None) -> Loaded:
    if text is not None:
        (base / "a.yaml").write_text(text)
    return load(base / "a.yaml", known.tls_files if known else None)


def said(loaded: Loaded, base: Path) -> list[str]:
    return [problem.text().replace(f"{base}{os.sep}", "") for problem in loaded.problems]


def asking(name: str) -> str:
    """TEXT with clients' certificates, which NAME.crt has signed and NAME.crl may revoke."""
    client = f"      clientCertificate: {{ca: tls/{name}.crt, crl: tls/{name}.crl}}\n"
    return TEXT.replace("      certificates:", f"{client}      certificates:")


def names_of(loaded: Loaded) -> list[list[str]]:
    return [[*pair.names] for pair in loaded.secured.listeners["web"].pairs]


def test_relative_paths_count_from_the_file_that_names_them(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    loaded = look(base)
    assert said(loaded, base) == [] and names_of(loaded) == [["one.test"], ["two.test", "*.two.test"]]
    side = loaded.secured.clusters["app"]
    assert (side.server_name, side.address, side.alpn) == ("app.test", "", ("http/1.1",))
    assert side.pair is not None and side.pair.key == key_of(TWO)
    assert AUTHORITY.pem.strip() in loaded.secured.bundles[side.ca]
    (base / "conf").mkdir()
    (base / "conf" / "b.yaml").write_text(TEXT)
    assert load(base / "conf").left_out == {("listeners", "web"), ("clusters", "app")}


def test_a_missing_file_leaves_its_pair_out_and_names_file_line_and_key(base: Path) -> None:
    (base / "tls" / "one.key").unlink()
    loaded = look(base)
    assert said(loaded, base) == [
        f"a.yaml:7: listeners[0].tls.certificates[0].key: tls/one.key: {GONE}; this pair is left out"
    ]
    assert names_of(loaded) == [["two.test", "*.two.test"]] and not loaded.left_out
    assert not any(problem.fatal for problem in loaded.problems)


def test_without_any_pair_the_listener_is_left_out_and_the_rest_goes_on(base: Path) -> None:
    for name in ("one.key", "two.crt"):
        (base / "tls" / name).unlink()
    loaded = look(base, text=TEXT + "routes: [{name: r, rules: [{backendRefs: [{name: app}]}]}]\n")
    assert loaded.config is not None and loaded.config.listeners == () and loaded.config.clusters == ()
    assert loaded.left_out == {("listeners", "web"), ("clusters", "app")}
    assert [route.name for route in loaded.config.routes] == ["r"]
    texts = said(loaded, base)
    assert texts[1].endswith(f"certificates[1].cert: tls/two.crt: {GONE}; the listener is left out")
    assert texts[2].endswith(f"clientCertificate.cert: tls/two.crt: {GONE}; the cluster is left out")
    assert not any(problem.fatal for problem in loaded.problems)


def test_a_bad_pair_keeps_the_old_one_and_a_good_one_replaces_it(base: Path) -> None:
    first = look(base)
    fresh = AUTHORITY.issue("one.test")
    (base / "tls" / "one.crt").write_bytes(chain_of(fresh))
    half = look(base, first)
    assert half.secured == first.secured
    assert said(half, base) == [
        "a.yaml:7: listeners[0].tls.certificates[0].key: tls/one.key: is not the key of the certificate; "
        "the last good one stays in use"
    ]
    # Seen again it still is the old one that serves.
    assert look(base, half).secured == first.secured
    (base / "tls" / "one.key").write_bytes(key_of(fresh))
    whole = look(base, half)
    assert said(whole, base) == [] and whole.secured.listeners["web"].pairs[0].chain == chain_of(fresh)
    assert whole.secured.listeners["web"].pairs[1] is first.secured.listeners["web"].pairs[1], "what is the same is not parsed"


def test_authorities_that_go_bad_keep_the_old_ones(base: Path) -> None:
    text = asking("clients")
    (base / "tls" / "clients.crt").write_bytes(AUTHORITY.pem)
    (base / "tls" / "clients.crl").write_bytes(AUTHORITY.revoke(ONE))
    first = look(base, text=text)
    assert said(first, base) == []
    side = first.secured.listeners["web"]
    assert (side.requires, side.depth, side.crl_for_all) == (True, 4, True) and b"X509 CRL" in side.crl
    for name in ("ca.crt", "clients.crt", "clients.crl"):
        (base / "tls" / name).write_bytes(b"nonsense")
    second = look(base, first)
    assert second.secured == first.secured and len([text for text in said(second, base) if text.endswith("stays in use")]) == 3
    # At start there is nothing to keep, and nobody is let in unasked.
    assert look(base).left_out == {("listeners", "web"), ("clusters", "app")}


def test_revocation_lists_that_refuse_more_than_meant_are_told(base: Path) -> None:
    text = asking("ca")
    crl = base / "tls" / "ca.crl"
    crl.write_bytes(AUTHORITY.revoke(next_update=days(-1)))
    (told,) = said(look(base, text=text), base)
    assert "out of date since" in told and "are refused" in told
    fallback = look(base, text=text.replace("{ca:", "{mode: insecureFallback, ca:"))
    assert any("out of date since" in each and "are let in as nobody" in each for each in said(fallback, base))
    crl.write_bytes(Authority("Other").revoke())
    loaded = look(base, text=text)
    assert "has no list of any authority" in said(loaded, base)[0] and not loaded.secured.listeners["web"].crl_for_all


def test_endpoints_are_looked_up_in_revocation_lists_too(base: Path) -> None:
    text = TEXT.replace("ca: tls/ca.crt, ", "ca: tls/ca.crt, crl: tls/ca.crl, ")
    crl = base / "tls" / "ca.crl"
    loaded = look(base, text=text)
    assert loaded.left_out == {("clusters", "app")}, "nobody is reached unasked"
    assert said(loaded, base) == [f"a.yaml:12: clusters[0].tls.crl: tls/ca.crl: {GONE}; the cluster is left out"]
    crl.write_bytes(AUTHORITY.revoke(TWO))
    good = look(base, loaded)
    side = good.secured.clusters["app"]
    assert said(good, base) == [] and b"X509 CRL" in side.crl and side.crl_for_all
    assert good.due is not None and good.due < days(31), "the next look is due when the list is out of date"
    crl.write_bytes(b"nonsense")
    assert look(base, good).secured == good.secured
    crl.write_bytes(AUTHORITY.revoke(next_update=days(-1)))
    assert said(look(base, good), base)[0].endswith("endpoints of its authority are refused")
    crl.write_bytes(Authority("Other").revoke())
    assert said(look(base, good), base)[0].endswith("has no list of any authority of 'ca'; every endpoint is refused")


def test_of_the_systems_authorities_each_certificate_is_looked_up_alone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "tls" / "lists.crl").write_bytes(AUTHORITY.revoke())
    monkeypatch.setenv("SSL_CERT_FILE", str(base / "tls" / "ca.crt"))
    loaded = look(base, text=TEXT.replace("ca: tls/ca.crt, ", "ca: system, crl: tls/lists.crl, "))
    assert said(loaded, base) == [] and not loaded.secured.clusters["app"].crl_for_all


def test_what_openssl_does_not_take_is_no_good_pair(base: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from test_pem import self_made

    cert, key = self_made(rsa.generate_private_key(65537, 1024))
    (base / "tls" / "one.crt").write_bytes(cert)
    (base / "tls" / "one.key").write_bytes(key)
    loaded = look(base)
    assert names_of(loaded) == [["two.test", "*.two.test"]]
    assert "OpenSSL does not take it: ee key too small; this pair is left out" in said(loaded, base)[0]


def test_pairs_that_nobody_will_see_are_told(base: Path) -> None:
    write_pair(base / "tls", "same", AUTHORITY.issue("one.test"))
    write_pair(base / "tls", "rsa", RSA)
    entries = "".join(f"        - {{cert: tls/{name}.crt, key: tls/{name}.key}}\n" for name in ("same", "rsa"))
    text = TEXT.replace("clusters:", f"{entries}clusters:").replace("port: 8443", "hostname: x.other\n    port: 8443")
    loaded = look(base, text=text)
    assert said(loaded, base) == [
        "a.yaml:8: warning: listeners[0].tls.certificates: none of them carries a name of the listener's hostname 'x.other'",
        "a.yaml:10: warning: listeners[0].tls.certificates[2].cert: never shown: certificates[0] has the same names and the same "
        "kind of key",
    ]


def test_a_response_is_stapled_while_it_is_good(base: Path) -> None:
    text = TEXT.replace("key: tls/one.key", "key: tls/one.key, ocsp: tls/one.ocsp")
    file = base / "tls" / "one.ocsp"
    loaded = look(base, text=text)
    assert "cannot be read: No such file or directory; nothing is stapled" in said(loaded, base)[0]
    file.write_bytes(AUTHORITY.answer(ONE))
    loaded = look(base, loaded)
    assert said(loaded, base) == [] and loaded.secured.listeners["web"].pairs[0].ocsp == file.read_bytes()
    assert loaded.due is not None and loaded.due < days(3), "the next look is due when the response is out of date"
    file.write_bytes(AUTHORITY.answer(ONE, next_update=days(-1)))
    loaded = look(base, loaded)
    assert "out of date since" in said(loaded, base)[0] and loaded.secured.listeners["web"].pairs[0].ocsp == b""


@pytest.mark.parametrize(
    ("left", "says", "next_mark"),
    [
        (40, "", 10),
        (29, "expires on", 22),
        (6.5, "in less than 7 days", 5.5),
        (0.5, "in less than 1 day", 0.5),
        (-1, "expired on", None),
    ],
)
def test_the_end_comes_nearer_and_somebody_is_told(base: Path, left: float, says: str, next_mark: float | None) -> None:
    end = days(left)
    leaf = AUTHORITY.issue("one.test", not_before=days(-60), not_after=end)
    write_pair(base / "tls", "one", leaf)
    loaded = look(base)
    texts = [text for text in said(loaded, base) if "certificates[0]" in text]
    assert len(texts) == (1 if says else 0) and all(says in text and "warning" in text for text in texts)
    assert ["one.test"] in names_of(loaded), "an expired certificate is shown: it is what there is"
    if next_mark is not None:
        assert loaded.due is not None and abs(loaded.due - days(next_mark)) < datetime.timedelta(seconds=5)


def test_a_certificate_of_tomorrow_is_told(base: Path) -> None:
    write_pair(base / "tls", "one", AUTHORITY.issue("one.test", not_before=days(1), not_after=days(300)))
    loaded = look(base)
    assert "not valid before" in said(loaded, base)[0]
    assert loaded.due is not None and loaded.due <= days(1)


def test_the_files_of_a_swapped_secret_come_from_one_version(base: Path) -> None:
    """..data is swapped in one step; a look that began before it reads both files from the old directory."""
    fresh = AUTHORITY.issue("one.test")
    secret = base / "tls" / "mounted"
    write_pair(secret / "..v1", "one", ONE)
    write_pair(secret / "..v2", "one", fresh)
    (secret / "..data").symlink_to("..v1")
    for name in ("one.crt", "one.key"):
        (secret / name).symlink_to(f"..data/{name}")
    first = look(base, text=TEXT.replace("tls/one.", "tls/mounted/one."))
    assert first.secured.listeners["web"].pairs[0].chain == chain_of(ONE)
    swap = secret / "..tmp"
    swap.symlink_to("..v2")
    mark = first.tls_files.marks[secret / "one.crt"]
    assert file_mark(secret / "one.crt") == mark
    swap.replace(secret / "..data")
    assert file_mark(secret / "one.crt") != mark
    assert look(base, first).secured.listeners["web"].pairs[0].chain == chain_of(fresh)


@pytest.mark.parametrize("name", ["tls", "/dev/zero", "fifo", "a\\0b", "tls/large"])
def test_what_is_no_plain_file_is_refused_at_once(base: Path, name: str) -> None:
    os.mkfifo(base / "fifo")
    with open(base / "tls" / "large", "wb") as file:
        file.truncate(module.MAX_FILE_BYTES + 1)
    loaded = look(base, text=TEXT.replace("{cert: tls/one.crt", f'{{cert: "{name}"'))
    assert any(says in said(loaded, base)[0] for says in ("is not a file", "holds a NUL", "larger than 4 MiB"))
    assert names_of(loaded) == [["two.test", "*.two.test"]]


def test_the_machine_s_own_authorities(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.replace("ca: tls/ca.crt", "ca: system")
    monkeypatch.setenv("SSL_CERT_FILE", str(base / "tls" / "ca.crt"))
    loaded = look(base, text=text)
    assert said(loaded, base) == [] and loaded.secured.bundles == {loaded.secured.clusters["app"].ca: AUTHORITY.pem}
    assert base / "tls" / "ca.crt" in loaded.tls_files.marks
    monkeypatch.setattr(module, "system_bundle", lambda: None)
    assert "this machine has no bundle of authorities; name a file; the cluster is left out" in said(look(base), base)[0]


def test_facts_are_known_of_every_certificate_in_use(base: Path) -> None:
    facts = look(base).secured.facts
    assert [(each.owner, each.name, each.file) for each in facts] == [
        ("listener", "web", "tls/one.crt"), ("listener", "web", "tls/two.crt"), ("cluster", "app", "tls/two.crt"),
    ]  # fmt: skip
    assert facts[1].names == ("two.test", "*.two.test") and len(facts[0].fingerprint) == 64


def test_no_key_is_shown_by_anything(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = look(base)
    secrets = [line for leaf in (ONE, TWO) for line in key_of(leaf).decode().splitlines()[1:-1]]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("gateway").warning("%r %s", loaded, loaded.secured)
    texts = (repr(loaded), str(loaded.secured), repr(loaded.tls_files), repr(loaded.secured.listeners["web"].pairs[0]), caplog.text)
    assert all(secret not in text for secret in secrets for text in texts)
    (base / "tls" / "one.crt").write_bytes(key_of(ONE))
    (base / "tls" / "one.key").write_bytes(key_of(ONE)[:-70])
    problems: list[Problem] = look(base, text=TEXT).problems
    assert problems and all(secret not in repr(problem) for secret in secrets for problem in problems)


def test_nothing_is_read_when_certificates_do_not_matter(base: Path) -> None:
    (base / "tls" / "one.key").unlink()
    loaded = load(base / "a.yaml", with_certificates=False)
    assert loaded.problems == [] and loaded.config is not None and loaded.config.listeners and loaded.tls_files == Files()
