"""How findings are told to people."""

import msgspec
import pytest

from gateway.model.problem import Finding, Problem, key_text, nearest, warning


def test_an_error_is_one_line_with_file_line_key_and_message() -> None:
    problem = Problem(severity="error", source="a.yaml", line=3, column=7, key="routes[0].name", message="is missing")
    assert problem.text() == "a.yaml:3: routes[0].name: is missing"


def test_a_warning_says_so() -> None:
    problem = Problem(severity="warning", source="a.yaml", line=3, key="admin", message="is odd")
    assert problem.text() == "a.yaml:3: warning: admin: is odd"


def test_what_is_not_known_is_left_out_of_the_line() -> None:
    assert Problem(severity="error", message="no files").text() == "no files"
    assert Problem(severity="error", source="a.yaml", message="is empty").text() == "a.yaml: is empty"
    assert Problem(severity="warning", source="a.yaml", message="is empty").text() == "a.yaml: warning: is empty"


def test_a_problem_is_json_for_scripts() -> None:
    problem = Problem(severity="error", source="a.yaml", line=3, column=7, key="k", message="m", fatal=True)
    assert msgspec.json.decode(msgspec.json.encode(problem)) == {
        "severity": "error", "source": "a.yaml", "line": 3, "column": 7, "key": "k", "message": "m", "fatal": True,
    }  # fmt: skip


def test_a_path_is_written_as_people_write_it() -> None:
    assert key_text(("routes", 0, "rules", 1, "backendRefs", 0, "nmae")) == "routes[0].rules[1].backendRefs[0].nmae"
    assert key_text(()) == ""


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("nmae", "name"),
        ("backend_refs", "backendRefs"),
        ("BackendRefs", "backendRefs"),
        ("backendref", "backendRefs"),
        ("zzz", None),
    ],
)
def test_the_nearest_word_is_the_one_that_was_meant(word: str, meant: str | None) -> None:
    assert nearest(word, ["name", "backendRefs", "matches", "filters"]) == meant


def test_only_one_object_is_not_the_whole_configuration() -> None:
    assert Finding(("listeners", 0, "port"), "x").is_fatal
    assert Finding(("admin",), "x").is_fatal
    assert Finding(("routes",), "expected a list").is_fatal
    assert not Finding(("routes", 0), "x").is_fatal
    assert not Finding(("clusters", 3, "name"), "x").is_fatal
    assert not warning(("listeners", 0), "x").is_fatal
