"""Answers that the gateway makes itself."""

import json
from html.parser import HTMLParser

import pytest

from gateway._core.reply import reply

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
PLAIN, JSON, HTML = b"text/plain; charset=utf-8", b"application/json", b"text/html; charset=utf-8"


class Text(HTMLParser):
    def __init__(self, body):
        super().__init__()
        self.tags = []
        self.open = []
        self.text = ""
        self.feed(body.decode("ascii"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def kind(*accept):
    return reply(404, accept)[1][b"content-type"]


def test_the_head_says_what_the_body_is_and_that_nobody_keeps_it():
    status, fields, body = reply(503, [], b"req-1")
    assert status == 503
    assert fields == {b"content-type": PLAIN, b"cache-control": b"no-store", b"x-request-id": b"req-1"}
    assert body == b"503 Service Unavailable\nrequest req-1\n"


@pytest.mark.parametrize(
    "accept, expected",
    [
        (BROWSER, HTML),
        (b"*/*", PLAIN),
        (b"", PLAIN),
        (b"text/*", PLAIN),
        (b"application/json", JSON),
        (b"application/problem+json", JSON),
        (b"APPLICATION/Vnd.API+JSON", JSON),
        (b"application/json, text/plain, */*", JSON),
        (b"text/plain, application/json", PLAIN),
        (b"text/html", HTML),
        (b"Text/HTML ; level=1", HTML),
        (b"text/html;q=0.5, application/json;q=0.6", JSON),
        (b"text/html;q=0.6, application/json;q=0.5", HTML),
        (b"text/html;q=0.5, */*", PLAIN),
        (b"text/html;q=0.5, */*;q=0.5", HTML),
        (b"text/html;q=0", PLAIN),
        (b"text/html;q=0.000, application/json;Q=0.001", JSON),
        (b"text/html;q=1.5x", HTML),
        (b"text/html;q=, application/json;q=0.1", JSON),
        (b"text/html;q=x, application/json;q=0.1", JSON),
        (b"text/html;a=b;q=0.1, application/json;q=0.2", JSON),
        (b"image/png, video/mp4", PLAIN),
        (b" ,, ,text/html,", HTML),
        (b"text/htm", PLAIN),
        (b"+json", PLAIN),
        (b"text/html;q", HTML),
    ],
)
def test_the_body_is_what_accept_likes_best(accept, expected):
    assert kind(accept) == expected


def test_without_accept_the_body_is_plain():
    assert kind() == PLAIN


def test_accept_may_stand_on_several_lines():
    assert kind(b"image/png", b"text/html;q=0.2", b"application/json;q=0.3") == JSON


def test_only_the_beginning_of_a_long_accept_is_read():
    assert kind(b"image/png," * 3000 + b"text/html") == PLAIN


@pytest.mark.parametrize("status", [400, 404, 408, 413, 414, 417, 421, 431, 500, 501, 502, 503, 504, 505, 508, 599])
@pytest.mark.parametrize("accept", [b"", b"application/json", b"text/html"])
def test_every_status_has_a_valid_body_of_every_kind(status, accept):
    _, fields, body = reply(status, [accept], b"abc")
    assert b"%d" % status in body and b"abc" in body
    if fields[b"content-type"] == JSON:
        assert json.loads(body).keys() == {"status", "title", "request_id"}
    elif fields[b"content-type"] == HTML:
        assert Text(body).open == []


@pytest.mark.parametrize("status", [204, 304])
def test_item_13_a_status_without_content_has_none(status):
    _, fields, body = reply(status, [b"text/html"], b"abc")
    assert body == b"" and b"content-type" not in fields


def test_a_status_nobody_knows_still_has_a_title():
    assert reply(599)[2] == b"599 Error\n"


# ---- the request id may be the client's ----


@pytest.mark.parametrize("evil", [b'"}{"a":"', b"\\", b'"' * 300, bytes(range(256)), b"\r\nset-cookie: a=b", b"\xff" * 200])
def test_a_request_id_cannot_leave_its_json_string(evil):
    _, _, body = reply(400, [b"application/json"], evil)
    shown = "".join(chr(c) if 0x20 <= c <= 0x7E else "?" for c in evil[:96])
    assert json.loads(body) == {"status": 400, "title": "Bad Request", "request_id": shown}


@pytest.mark.parametrize("evil", [b"<script>alert(1)</script>", b"</code><b>", b"&lt;", b"'\"<>&" * 50, bytes(range(256))])
def test_a_request_id_cannot_leave_its_html_element(evil):
    _, _, body = reply(400, [b"text/html"], evil)
    page = Text(body)
    assert page.tags == ["html", "head", "meta", "title", "body", "h1", "p", "code"]
    assert "".join(chr(c) if 0x20 <= c <= 0x7E else "?" for c in evil[:96]) in page.text
    assert len(body) <= 1024


@pytest.mark.parametrize("evil", [b"a\r\nb", b"a\x1b[31mb", b"\x00"])
def test_a_request_id_cannot_control_a_terminal_or_a_field(evil):
    _, fields, body = reply(400, [], evil)
    assert all(c == 10 or 0x20 <= c <= 0x7E for c in body)
    assert body.count(b"\n") == 2
    assert b"x-request-id" not in fields


def test_the_request_id_field_is_left_out_when_it_is_too_long():
    assert reply(400, [], b"x" * 256)[1][b"x-request-id"] == b"x" * 256
    assert b"x-request-id" not in reply(400, [], b"x" * 257)[1]


def test_the_longest_body_fits_its_room():
    # 511 has the longest reason phrase.
    assert max(len(reply(511, [accept], b'"' * 999)[2]) for accept in (b"", b"application/json", b"text/html")) < 1024
