"""A path on disk -> a configuration and its problems."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki import write_files_for

from gateway.control.build import build
from gateway.sources import files
from gateway.sources.files import Loaded, load

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "config").glob("*.yaml"))
GOOD = """listeners: [{name: web, port: 80}]
clusters: [{name: app, endpoints: ['a:1']}]
routes: [{name: r, rules: [{backendRefs: [{name: app}]}]}]
"""


def said(loaded: Loaded, base: Path) -> list[str]:
    return [problem.text().replace(f"{base}{os.sep}", "") for problem in loaded.problems]


def write(base: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (base / name.replace("_", ".")).write_text(text)
    return base


def with_its_files(path: Path, directory: Path) -> Path:
    """A copy of a configuration in a directory where the files are that it names."""
    write_files_for(path.read_text(), directory)
    return Path(shutil.copy(path, directory))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_of_ours_loads_and_builds(path: Path, tmp_path: Path) -> None:
    loaded = load(with_its_files(path, tmp_path))
    assert loaded.config is not None
    assert [problem.text() for problem in loaded.problems] == []
    model = build(loaded.config)
    assert model.listeners and model.routes and model.clusters


def test_the_reference_has_every_key_of_the_language() -> None:
    from gateway.model.schema import schema

    # What only objects of the API server have, and filters that are decoded for them.
    foreign = set(
        [
            "group",
            "namespace",
            "useDefaultGateways",
            "externalAuth",
            "extensionRef",
            "grpc",
            "http",
            "forwardBody",
            "allowedHeaders",
            "allowedResponseHeaders",
            "maxSize",
            "sessionName",
            "absoluteTimeout",
            "cookieConfig",
            "lifetimeType",
        ]
    )
    rules = schema()
    known = {key for definition in [rules, *rules["$defs"].values()] for key in definition["properties"]}
    text = next(path for path in CONFIGS if path.name == "reference.yaml").read_text()
    assert {key for key in known - foreign if f"{key}:" not in text} == set()


def test_the_reference_that_was_given_loads_as_it_stands(tmp_path: Path) -> None:
    loaded = load(with_its_files(Path(__file__).with_name("given_reference.yaml"), tmp_path))
    assert loaded.config is not None
    assert all(problem.severity == "warning" and "not served by this version" in problem.message for problem in loaded.problems)
    assert len(loaded.config.listeners) == 3 and len(loaded.config.routes) == 3 and len(loaded.config.clusters) == 6


def test_one_bad_route_does_not_take_down_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    bad_route = "{name: bad,\n     rules: [{backendRefs: [{nmae: app}]}]}"
    path.write_text(GOOD.replace("routes: [", f"routes: [\n  {bad_route},\n  "))
    loaded = load(path)
    assert loaded.config is not None
    assert [route.name for route in loaded.config.routes] == ["r"]
    assert said(loaded, tmp_path) == [
        "a.yaml:5: routes[0].rules[0].backendRefs[0]: missing key 'name'",
        "a.yaml:5: routes[0].rules[0].backendRefs[0].nmae: unknown key 'nmae'; did you mean 'name'?",
    ]
    assert not any(problem.fatal for problem in loaded.problems)
    assert [(problem.line, problem.column) for problem in loaded.problems] == [(5, 29), (5, 30)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("admin: {adress: x}", "a.yaml:1: admin.adress: unknown key 'adress'; did you mean 'address'?"),
        ("admin: [", "a.yaml:2: YAML: while parsing a flow node that begins at line 2, did not find"),
        ("lisners: []", "a.yaml:1: lisners: unknown key 'lisners'; did you mean 'listeners'?"),
        ("listeners: [{name: web, prot: 80}]", "a.yaml:1: listeners[0].prot: unknown key 'prot'; did you mean 'port'?"),
        ("limits:\n  idleTimeout: 10", "a.yaml:2: limits.idleTimeout: a duration needs a unit: '10s' or '10ms'?"),
        ("workers: 0", "a.yaml:1: workers: 0 is too small; at least 1"),
        ("admin:\n  address: ':x'", "a.yaml:2: admin.address: 'x' is not a port; it is a number from 0 to 65535"),
        (
            "listeners:\n- {name: a, port: 1}\n- {name: a, port: 2}",
            "a.yaml:3: listeners[1].name: the name 'a' stands twice among listeners",
        ),
    ],
)
def test_what_is_wrong_at_the_root_is_fatal(tmp_path: Path, text: str, says: str) -> None:
    loaded = load(write(tmp_path, a_yaml=text) / "a.yaml")
    assert loaded.config is None
    assert any(line.startswith(says) for line in said(loaded, tmp_path)), said(loaded, tmp_path)
    assert any(problem.fatal for problem in loaded.problems)


def test_problems_everywhere_are_shown_at_once(tmp_path: Path) -> None:
    """A fatal problem does not hide the others."""
    loaded = load(
        write(tmp_path, a_yaml="workers: 0\nclusters: [{name: c, endpoints: [x]}]\nroutes: [{name: r, hostnames: ['a b']}]")
    )
    assert [line.split(": ")[1] for line in said(loaded, tmp_path)] == [
        "workers",
        "clusters[0].endpoints[0]",
        "routes[0].hostnames[0]",
    ]


def test_a_directory_is_one_configuration(tmp_path: Path) -> None:
    write(tmp_path, b_yml="clusters: [{name: b, endpoints: ['b:1']}]", a_yaml=GOOD, notes_txt="x: [")
    (tmp_path / "c.json").write_text(json.dumps({"clusters": [{"name": "c", "endpoints": ["c:1"]}], "workers": 2}))
    (tmp_path / ".hidden.yaml").write_text("x: [")
    (tmp_path / "sub.yaml").mkdir()
    loaded = load(tmp_path)
    assert said(loaded, tmp_path) == []
    assert loaded.config is not None
    assert [cluster.name for cluster in loaded.config.clusters] == ["app", "b", "c"]
    assert loaded.config.workers == 2
    assert loaded.files == [tmp_path / "a.yaml", tmp_path / "b.yml", tmp_path / "c.json"]


def test_a_name_that_stands_in_two_files_is_told_with_both_places(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, a_yaml=GOOD, b_yaml="\nclusters:\n- {name: app, endpoints: ['b:1']}"))
    assert [line.replace(str(tmp_path) + os.sep, "") for line in said(loaded, tmp_path)] == [
        "b.yaml:3: clusters[0].name: the name 'app' stands twice among clusters; first at a.yaml:2"
    ]
    assert loaded.config is not None
    assert loaded.config.clusters[0].endpoints == ("a:1",), "the first one stays"


def test_a_finding_is_told_in_the_file_and_at_the_place_it_came_from(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_yaml=GOOD + "rateLimits: [{name: x}]",
        b_yaml="routes:\n- {name: q, listeners: [wbe]}\n- {nme: z}\n- {name: s, hostnames: [1.2.3.4]}",
    )
    assert said(load(tmp_path), tmp_path) == [
        "a.yaml:4: rateLimits[0]: needs either 'limit' or 'concurrency'",
        "b.yaml:2: warning: routes[0]: attaches to no listener: there is none of protocol HTTP or HTTPS that it names",
        "b.yaml:2: routes[0].listeners[0]: there is no listener 'wbe' (did you mean 'web'?)",
        "b.yaml:3: routes[1]: missing key 'name'",
        "b.yaml:3: routes[1].nme: unknown key 'nme'; did you mean 'name'?",
        "b.yaml:4: routes[2].hostnames[0]: '1.2.3.4' is an IP address; a host name is meant",
    ]


def config_map(base: Path, version: str, **texts: str) -> None:
    """As the kubelet writes it: a new directory, then `..data` is swapped by rename, then links and the old directory."""
    (base / version).mkdir()
    write(base / version, **texts)
    os.symlink(version, base / "..data_tmp")
    os.rename(base / "..data_tmp", base / "..data")
    for name in texts:
        link = base / name.replace("_", ".")
        if not link.is_symlink():
            os.symlink(f"..data/{link.name}", link)


def test_a_mounted_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    config_map(tmp_path, "..v1", a_yaml=GOOD)
    first = load(tmp_path)
    assert first.config is not None and first.files == [tmp_path / "a.yaml"]
    config_map(tmp_path, "..v2", a_yaml=GOOD.replace("a:1", "b:1"))
    second = load(tmp_path)
    assert second.config is not None
    assert second.config.clusters[0].endpoints == ("b:1",)
    assert first.digest != second.digest
    assert load(tmp_path / "a.yaml").config == second.config


def test_a_config_map_is_never_read_half_old_and_half_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The swap comes between the reading of two files; both still come from the version that was there first."""
    config_map(tmp_path, "..v1", a_yaml="workers: 1", b_yaml=GOOD)
    plain_read = files._read_file

    def read_and_swap(shown: Path, real: Path) -> files._Text:
        text = plain_read(shown, real)
        if not (tmp_path / "..v2").exists():
            config_map(tmp_path, "..v2", a_yaml="workers: 2", b_yaml=GOOD.replace("a:1", "b:1"))
        return text

    monkeypatch.setattr(files, "_read_file", read_and_swap)
    config = load(tmp_path).config
    assert config is not None
    assert (config.workers, config.clusters[0].endpoints) == (1, ("a:1",))


def test_a_version_that_vanishes_while_it_is_read_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_map(tmp_path, "..v1", a_yaml="workers: 1", b_yaml=GOOD)
    plain_read = files._read_file

    def swap_and_read(shown: Path, real: Path) -> files._Text:
        if not (tmp_path / "..v2").exists():
            config_map(tmp_path, "..v2", a_yaml="workers: 2", b_yaml=GOOD)
            for name in ("a.yaml", "b.yaml"):
                (tmp_path / "..v1" / name).unlink()
        return plain_read(shown, real)

    monkeypatch.setattr(files, "_read_file", swap_and_read)
    config = load(tmp_path).config
    assert config is not None
    assert config.workers == 2


def test_what_cannot_be_read_is_a_problem_and_no_exception(tmp_path: Path) -> None:
    assert said(load(tmp_path / "none.yaml"), tmp_path) == ["none.yaml: cannot be read: No such file or directory"]
    assert said(load(tmp_path), tmp_path) == [f"{tmp_path}: no configuration in this directory: no *.yaml, *.yml, *.json"]
    os.symlink("nowhere", tmp_path / "a.yaml")
    assert said(load(tmp_path), tmp_path) == ["a.yaml: cannot be read: No such file or directory"]
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "a.yaml").write_bytes(b"admin: {}\n# \xff\n")
    assert said(load(tmp_path), tmp_path) == ["a.yaml:2: is not UTF-8 text"]
    assert load(tmp_path).config is None


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "a.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    assert said(load(tmp_path), tmp_path) == ["a.yaml: larger than 1 MiB"]


def test_the_digest_tells_contents_apart_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, a_yaml=GOOD)
    first = load(tmp_path).digest
    os.utime(tmp_path / "a.yaml", (1, 1))
    assert load(tmp_path).digest == first
    write(tmp_path, a_yaml=GOOD + "#")
    assert load(tmp_path).digest != first


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, a_yaml="# nothing\n"))
    assert loaded.problems == [] and loaded.config is not None


PIECES = st.sampled_from(
    [
        "routes:",
        "clusters:",
        "listeners:",
        "- name: a",
        "  rules:",
        "  - matches: [{path: {value: /}}]",
        "  x: &a 1",
        "  y: *a",
        "    backendRefs: [{name: a}]",
        "  port: 80",
        "admin: {address: ':1'}",
        "[",
        "}",
        ": ",
        "\t",
        "- {}",
        "- 1",
        "---",
        "workers: 2",
        "  endpoints: ['a:1', {address: b}]",
        "  kind: TLSRoute",
        "  hostnames: [a, 1]",
        "limits: {idleTimeout: 1s}",
        "\x85",
        "é",
        "<<: 1",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=14).map("\n".join))
def test_no_file_makes_it_raise(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    loaded = load(tmp_path)
    assert (loaded.config is None) == any(problem.fatal for problem in loaded.problems)
    if loaded.config is not None:
        build(loaded.config)
