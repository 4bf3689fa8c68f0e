"""Answers that the gateway makes itself: their content by Accept, the id in them, and none for HEAD."""

import json

import pytest
from conftest import Connect
from wirebench import Client, Gateway

CONFIG = """
listeners:
  - {name: web, port: 8080}
routes:
  - name: some
    hostnames: [there.test]
    rules:
      - filters:
          - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-gateway, value: "1"}], remove: [cache-control]}}
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: []}
"""
PROBLEMS = ["has no endpoints"]


def ask(client: Client, *fields: str, method: str = "GET", host: str = "nowhere.test") -> None:
    client.send("".join(f"{line}\r\n" for line in (f"{method} / HTTP/1.1", f"Host: {host}", *fields, "")))


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ([], "text/plain; charset=utf-8"),
        (["*/*"], "text/plain; charset=utf-8"),
        (["application/json"], "application/json"),
        (["application/problem+json"], "application/json"),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], "text/html; charset=utf-8"),
        (["text/html;q=0.5, application/json"], "application/json"),
        (["text/html;q=0", "image/png"], "text/plain; charset=utf-8"),
        (["image/*", "application/json;q=0.1"], "application/json"),
    ],
)
def test_content_is_what_the_client_accepts(client: Client, accept: list[str], media: str) -> None:
    ask(client, "X-Request-Id: seen-1", *(f"Accept: {value}" for value in accept))
    answer = client.answer()
    assert (answer.status, answer.reason, answer.get("content-type")) == (404, "Not Found", media)
    assert answer.get("cache-control") == "no-store"
    assert b"404" in answer.body
    if "json" in media:
        assert json.loads(answer.body)["status"] == 404
    if "html" in media:
        assert answer.body.startswith(b"<!doctype html>")
    client.kept()


def test_nothing_that_a_client_said_stands_in_the_page(client: Client) -> None:
    ask(client, "Accept: text/html", "X-Request-Id: <script>alert(1)</script>", host="there.test")
    answer = client.answer()
    assert answer.status == 503
    assert b"<script" not in answer.body


def test_the_id_of_the_request_is_in_the_answer(client: Client, gateway: Gateway) -> None:
    ask(client, "Accept: application/json", "X-Request-Id: mine-1", host="there.test")
    answer = client.answer()
    assert (answer.status, answer.get("x-request-id")) == (503, "mine-1")
    assert json.loads(answer.body)["request_id"] == "mine-1"
    ask(client, host="there.test")
    made = client.answer().get("x-request-id")
    assert made is not None and len(made) == 36
    assert [line["request_id"] for line in gateway.log()] == ["mine-1", made]


def test_filters_of_the_response_are_run(client: Client) -> None:
    ask(client, host="there.test")
    answer = client.answer()
    assert (answer.status, answer.get("x-gateway"), answer.get("cache-control")) == (503, "1", None)


def test_head_gets_the_fields_and_no_content(client: Client) -> None:
    ask(client, method="HEAD")
    answer = client.answer("HEAD")
    assert (answer.status, answer.get("content-type")) == (404, "text/plain; charset=utf-8")
    client.kept()


def test_a_refused_head_is_logged_with_its_reason(connect: Connect, gateway: Gateway) -> None:
    client = connect()
    client.send("BAD\r\n\r\n")
    client.refused(400)
    line = gateway.log()[0]
    assert line["status"] == 400
    assert "DPE" in line["flags"] and line["detail"] == "start_line"
