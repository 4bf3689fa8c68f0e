"""Sources to revisions: what is applied, what is dropped as unchanged, what keeps the last good."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pki import Authority, days, key_of, write_pair

from gateway.control import reconciler as module
from gateway.control.publish import wanted_of
from gateway.control.reconciler import Reconciler, Revision
from gateway.model.problem import Problem
from gateway.sources import files

TEXT = """\
listeners:
  - {name: web, address: "127.0.0.1:0"}
  - {name: api, address: "127.0.0.2:0", hostname: api.test}
routes:
  - name: shop
    rules: [{backendRefs: [{name: one}, {name: two}]}]
  - name: blog
    hostnames: [blog.test]
    rules: [{backendRefs: [{name: two}]}]
clusters:
  - {name: one, endpoints: ["10.0.0.1:80", {address: "api.example:81", weight: 3, zone: a}]}
  - {name: two, endpoints: ["unix:/run/app.sock"]}
"""


class Plane:
    """Stands for the supervisor: remembers the revisions, and what it is told to complain about."""

    def __init__(self) -> None:
        self.applied: list[Revision] = []
        self.problems: list[Problem] = []

    def __call__(self, revision: Revision) -> list[Problem]:
        self.applied.append(revision)
        return self.problems


def tell(tmp_path: Path, *steps: str | None, why: str = "test") -> tuple[Reconciler, Plane, list[bool]]:
    """Loads once for each step, after writing it (None: the file stays)."""
    path = tmp_path / "isthmus.yaml"
    plane = Plane()

    async def run() -> tuple[Reconciler, list[bool]]:
        reconciler = Reconciler(path, plane)
        answers = []
        for step in steps:
            if step is not None:
                path.write_text(step)
            answers.append(await reconciler.reload(why))
        return reconciler, answers

    reconciler, answers = asyncio.run(run())
    return reconciler, plane, answers


def test_the_first_load_is_revision_1_and_an_unchanged_one_is_dropped(tmp_path: Path) -> None:
    other_order = TEXT.replace("  - {name: web, address: \"127.0.0.1:0\"}\n", "").replace(
        "routes:\n", "  - {name: web, address: \"127.0.0.1:0\"}\nroutes:\n"
    )
    reconciler, plane, answers = tell(tmp_path, TEXT, None, TEXT + "# a comment\n", other_order)
    assert answers == [True] * 4 and reconciler.loads == 4
    assert {revision.number for revision in plane.applied} == {1}
    assert len({revision.compiled.blob for revision in plane.applied}) == 1


def test_sources_that_are_as_they_were_are_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is written and SIGHUP is sent: the watch and the signal both ask for a look."""
    parsed: list[Path] = []
    load = module.files.load

    def noting(path: Path, *more: Any) -> files.Loaded:
        parsed.append(path)
        return load(path, *more)

    monkeypatch.setattr(module.files, "load", noting)
    slip = TEXT.replace("hostnames: [blog.test]", "hostname: [blog.test]")
    reconciler, plane, answers = tell(tmp_path, slip, None, None, TEXT, None)
    assert len(parsed) == 2 and len(plane.applied) == 2
    assert answers == [True] * 5 and reconciler.loads == 5 and reconciler.problems == []
    parsed.clear()
    reconciler, plane, answers = tell(tmp_path, TEXT, "{", None, TEXT, None)
    assert len(parsed) == 3 and answers == [True, False, False, True, True]
    assert reconciler.failed_loads == 2 and not reconciler.is_stale and reconciler.revision == 1
    parsed.clear()
    reconciler, plane, _ = tell(tmp_path, slip, None)
    assert len(parsed) == 1 and any("did you mean 'hostnames'" in problem.text() for problem in reconciler.problems)


def test_sources_beyond_the_files_are_looked_at_each_time(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(TEXT)
    other = tmp_path / "other.yaml"
    other.write_text(TEXT)
    plane = Plane()

    async def run() -> None:
        reconciler = Reconciler(path, plane, lambda known: files.load(other, known))
        for name in ("blog.test", "blog2.test"):
            other.write_text(TEXT.replace("blog.test", name))
            await reconciler.reload("objects")

    asyncio.run(run())
    assert [revision.number for revision in plane.applied] == [1, 2]


def test_what_keeps_a_file_from_being_read_is_part_of_what_the_sources_are(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.yaml"
    missing = files.digest(path)
    path.mkdir()
    empty = files.digest(path)
    (path / "a.yaml").write_text(TEXT)
    assert len({missing, empty, files.digest(path)}) == 3
    assert files.digest(path) == files.load(path).digest == files.digest(path)


def test_what_does_not_concern_routes_travels_with_the_old_snapshot(tmp_path: Path) -> None:
    _, plane, _ = tell(tmp_path, TEXT, TEXT + "accessLog: {format: text}\n")
    first, second = plane.applied
    assert second.number == 1 and second.compiled is first.compiled and second.config.access_log.format == "text"


def test_a_file_that_cannot_be_used_keeps_the_last_good(tmp_path: Path) -> None:
    reconciler, plane, answers = tell(tmp_path, TEXT, TEXT.replace("clusters:", "cluster:"))
    assert answers == [True, False] and len(plane.applied) == 1
    assert reconciler.is_stale and "'clusters'" in reconciler.last_error and reconciler.failed_loads == 1
    reconciler, plane, answers = tell(tmp_path, TEXT, "{", TEXT.replace("blog.test", "blog2.test"))
    assert answers == [True, False, True] and not reconciler.is_stale and reconciler.revision == 2


def test_a_first_file_that_cannot_be_used_applies_nothing(tmp_path: Path) -> None:
    reconciler, plane, answers = tell(tmp_path, "listner: []\n")
    assert answers == [False] and not plane.applied and reconciler.current is None
    assert any("did you mean 'listeners'" in problem.text() for problem in reconciler.problems)


def test_a_slip_in_one_route_keeps_that_routes_last_good_version(tmp_path: Path) -> None:
    slip = TEXT.replace("hostnames: [blog.test]", "hostname: [blog.test]").replace("/run/app.sock", "/run/new.sock")
    reconciler, plane, _ = tell(tmp_path, TEXT, slip)
    model = plane.applied[-1].model
    assert [route.name for route in model.routes] == ["blog", "shop"] and plane.applied[-1].number == 2
    assert model.clusters[1].endpoints[0].host == "/run/new.sock"
    texts = [problem.text() for problem in reconciler.problems]
    assert any("did you mean 'hostnames'" in text for text in texts)
    assert any("last good version of 'blog' stays in use" in text for text in texts)


def test_a_slip_that_changes_nothing_in_use_is_told_once_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slip = TEXT.replace("hostnames: [blog.test]", "hostname: [blog.test]")
    _, plane, _ = tell(tmp_path, TEXT, slip, slip + "\n", why="change")
    assert len(plane.applied) == 1
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "isthmus.yaml:8" in text and "did you mean 'hostnames'" in text]) == 1
    assert len([text for text in said if "last good version of 'blog' stays in use" in text]) == 1


def test_at_start_there_is_no_last_good_version_and_the_rest_goes_on(tmp_path: Path) -> None:
    reconciler, plane, answers = tell(tmp_path, TEXT.replace("hostnames: [blog.test]", "hostname: [blog.test]"))
    assert answers == [True] and [route.name for route in plane.applied[0].model.routes] == ["shop"]
    assert reconciler.problems


def test_a_slip_in_a_cluster_keeps_its_endpoints(tmp_path: Path) -> None:
    _, plane, _ = tell(tmp_path, TEXT, TEXT.replace("unix:/run/app.sock", "unix:relative"))
    assert [cluster.name for cluster in plane.applied[-1].model.clusters] == ["one", "two"]


def test_a_route_that_is_taken_out_on_purpose_goes(tmp_path: Path) -> None:
    blog = "  - name: blog\n    hostnames: [blog.test]\n    rules: [{backendRefs: [{name: two}]}]\n"
    assert blog in TEXT
    _, plane, _ = tell(tmp_path, TEXT, TEXT.replace(blog, ""))
    assert [route.name for route in plane.applied[-1].model.routes] == ["shop"]


def test_what_could_not_be_put_to_use_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(TEXT)
    plane = Plane()
    plane.problems = [Problem(severity="error", message="cannot listen on 127.0.0.1:80")]

    async def run() -> None:
        reconciler = Reconciler(path, plane)
        await reconciler.reload("test")
        assert reconciler.problems == plane.problems and not reconciler.is_stale
        plane.problems = []
        await reconciler.reload("test")
        assert reconciler.problems == [] and len(plane.applied) == 2

    asyncio.run(run())


def test_a_bug_in_compiling_keeps_the_last_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(TEXT)
    plane = Plane()

    def explode(*_: Any) -> Any:
        raise ZeroDivisionError("oh")

    async def run() -> None:
        reconciler = Reconciler(path, plane)
        assert await reconciler.reload("test")
        monkeypatch.setattr(module, "compile_model", explode)
        path.write_text(TEXT.replace("blog.test", "other.test"))
        assert not await reconciler.reload("test")
        assert "internal error" in reconciler.last_error and reconciler.revision == 1

    asyncio.run(run())


def test_loads_do_not_overlap(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(TEXT)
    plane = Plane()

    async def run() -> None:
        reconciler = Reconciler(path, plane)
        assert all(await asyncio.gather(*(reconciler.reload("test") for _ in range(5))))
        assert len(plane.applied) == 1 and reconciler.loads == 5

    asyncio.run(run())


def test_the_wishes_of_a_revision_carry_the_ids_of_the_snapshot(tmp_path: Path) -> None:
    _, plane, _ = tell(tmp_path, TEXT)
    revision = plane.applied[0]
    wanted = wanted_of(revision.model, revision.compiled)
    assert sorted(wanted.addresses.values()) == ["127.0.0.1:0", "127.0.0.2:0"]
    assert sorted(wanted.listeners.values()) == [["api"], ["web"]]
    assert wanted.endpoints == {
        revision.compiled.clusters["one"]: [(b"10.0.0.1", 80, 1, b""), (b"api.example", 81, 3, b"a")],
        revision.compiled.clusters["two"]: [(b"/run/app.sock", 0, 1, b"")],
    }
    assert all(revision.compiled.names[id_][0] == "bind" for id_ in wanted.addresses)


def test_a_load_steps_back_behind_the_workers_and_the_loop_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    load = module.files.load

    def noting(*given: Any) -> files.Loaded:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return load(*given)

    monkeypatch.setattr(module.files, "load", noting)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    tell(tmp_path, TEXT, TEXT + "# again\n")
    assert seen == [min(19, before + module.STEP_BACK)] * 2
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


SECURE = """\
listeners:
  - name: web
    address: "127.0.0.1:0"
    protocol: HTTPS
    tls: {certificates: [{cert: web.crt, key: web.key}]}
routes:
  - name: shop
    rules: [{backendRefs: [{name: one}]}]
  - name: raw
    kind: TCPRoute
    rules: [{backendRefs: [{name: two}]}]
clusters:
  - {name: one, endpoints: ["one.test:443"], tls: {ca: ca.crt}}
  - {name: two, endpoints: ["10.0.0.1:443"], tls: {ca: ca.crt}}
"""


def tell_with_files(tmp_path: Path, *steps: Callable[[], object]) -> tuple[Reconciler, Plane]:
    """Loads SECURE once, and once after each step."""
    authority = Authority()
    write_pair(tmp_path, "web", authority.issue("web.test"))
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    path = tmp_path / "isthmus.yaml"
    path.write_text(SECURE)
    plane = Plane()

    async def run() -> Reconciler:
        reconciler = Reconciler(path, plane)
        await reconciler.reload("test")
        for step in steps:
            step()
            await reconciler.reload("change")
        return reconciler

    return asyncio.run(run()), plane


def test_another_certificate_makes_no_other_revision_but_is_applied(tmp_path: Path) -> None:
    fresh = Authority().issue("web.test")
    reconciler, plane = tell_with_files(tmp_path, lambda: None, lambda: write_pair(tmp_path, "web", fresh))
    first, second = plane.applied
    assert (first.number, second.number) == (1, 1) and second.compiled is first.compiled
    assert first.secured != second.secured and second.secured.listeners["web"].pairs[0].key == key_of(fresh)
    assert set(reconciler.tls_marks) == {tmp_path / name for name in ("web.crt", "web.key", "ca.crt")}
    assert reconciler.due is not None


def test_a_listener_whose_certificate_is_gone_keeps_serving_with_the_last_good(tmp_path: Path) -> None:
    def rename_and_lose() -> None:
        (tmp_path / "isthmus.yaml").write_text(SECURE.replace("web.crt", "new.crt").replace("ca: ca.crt", "ca: none.crt"))

    reconciler, plane = tell_with_files(tmp_path, rename_and_lose)
    # Nothing in use changed, so nothing is applied: the listener, its certificate and the clusters stay as they were.
    assert len(plane.applied) == 1 and not reconciler.is_stale
    texts = [problem.text() for problem in reconciler.problems]
    assert any("new.crt: cannot be read: No such file or directory; the listener is left out" in text for text in texts)
    assert sum("the last good version of" in text for text in texts) == 3


def test_a_kept_listener_goes_on_beside_what_is_new(tmp_path: Path) -> None:
    def lose_and_change() -> None:
        text = SECURE.replace("web.crt", "new.crt").replace("one.test:443", "two.test:443")
        (tmp_path / "isthmus.yaml").write_text(text)

    _, plane = tell_with_files(tmp_path, lose_and_change)
    first, second = plane.applied
    assert second.number == 2 and second.secured.listeners == first.secured.listeners
    assert second.secured.clusters["one"].server_name == "two.test"
    assert [each.name for each in second.secured.facts] == ["web"]
    assert second.secured.bundles == first.secured.bundles


def test_without_any_listener_nothing_is_opened_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(SECURE)
    plane = Plane()
    reconciler = Reconciler(path, plane)
    assert not asyncio.run(reconciler.reload("test")) and not plane.applied
    assert any(problem.fatal and "none of the listeners can be opened" in problem.message for problem in reconciler.problems)
    assert tmp_path / "web.crt" in reconciler.tls_marks, "what is missing is watched for"


def test_a_look_because_of_the_time_says_what_is_new_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reconciler, _ = tell_with_files(tmp_path)
    write_pair(tmp_path, "web", Authority().issue("web.test", not_before=days(-9), not_after=days(5)))

    async def look_twice() -> None:
        await reconciler.reload("time")
        await reconciler.reload("time")

    asyncio.run(look_twice())
    assert caplog.text.count("in less than 7 days") == 1
    assert sum("in less than 7 days" in problem.message for problem in reconciler.problems) == 1


def test_the_wishes_of_a_revision_say_who_speaks_tls(tmp_path: Path) -> None:
    _, plane = tell_with_files(tmp_path)
    revision = plane.applied[0]
    wanted = wanted_of(revision.model, revision.compiled, revision.secured)
    assert [revision.compiled.names[id_] for id_ in wanted.server_sides] == [("listener", "web")]
    assert list(wanted.schemes.values()) == ["https"]
    one, two = (wanted.client_sides[revision.compiled.clusters[name]] for name in ("one", "two"))
    assert (one.server_name, one.address, one.alpn) == ("one.test", "", ("http/1.1",))
    assert (two.server_name, two.address, two.alpn) == ("", "10.0.0.1", ()), "what a tunnel carries is nobody's guess"
    assert set(wanted.bundles) == {one.ca}


def test_the_same_files_mean_something_else_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, and still the certificate comes nearer to its end."""
    reconciler, plane = tell_with_files(tmp_path)
    write_pair(tmp_path, "web", Authority().issue("web.test", not_before=days(-9), not_after=days(40)))

    async def look_and_look_again() -> None:
        await reconciler.reload("change")
        assert "expires" not in str(reconciler.problems) and reconciler.due is not None and reconciler.due < days(10.1)
        monkeypatch.setattr(files, "secure", functools.partial(files.secure, now=reconciler.due))
        await reconciler.reload("time")

    asyncio.run(look_and_look_again())
    assert sum("in less than 30 days" in problem.message for problem in reconciler.problems) == 1
    assert len(plane.applied) == 2, "what is shown is the same"
