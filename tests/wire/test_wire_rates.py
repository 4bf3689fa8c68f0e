"""Rate limits as a client meets them: who is counted, what is refused and how, and what the store is asked."""

import json

import pytest
from conftest import Connect
from wirebench import Answer, Client, Gateway, Origin

CONFIG = """
redis: {url: "redis://127.0.0.1:1/0", timeout: 40ms}
listeners:
  - {name: web, port: 8080}
  - {name: behind, port: 8081, trustedHops: 1}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /two}}]
        rateLimits: [two]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /who}}]
        rateLimits: [who]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /both}}]
        rateLimits: [user, narrow]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /skip}}]
        rateLimits: [skipping]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /shared}}]
        rateLimits: [user]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /over}}]
        rateLimits: [overridden]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /shadow}}]
        rateLimits: [shadow]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /legacy}}]
        rateLimits: [legacy]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /x}}]
        rateLimits: [x]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /off}}]
        rateLimits: ["off"]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /cost}}]
        rateLimits: [costly]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /flight}}]
        rateLimits: [flight]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /cluster}}]
        backendRefs: [{name: limited}]
      - matches: [{path: {type: PathPrefix, value: /fixed}}]
        rateLimits: [fixed]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /store}}]
        rateLimits: [strict]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /closed}}]
        rateLimits: [closed]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /fall}}]
        rateLimits: [fall]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /leased}}]
        rateLimits: [leased]
        backendRefs: [{name: site}]
rateLimits:
  - {name: who, limit: {requests: 2, per: 1h}, mode: local}
  - {name: two, limit: {requests: 2, per: 1h}, mode: local}
  - {name: user, limit: {requests: 3, per: 1h}, key: ["header:x-user"], mode: local}
  - {name: narrow, limit: {requests: 1, per: 1h}, key: [path, method], mode: local}
  - {name: skipping, limit: {requests: 1, per: 1h}, key: ["cookie:id", "query:q"], mode: local, missing: skip}
  - name: overridden
    limit: {requests: 1, per: 1h}
    key: ["header:x-user"]
    mode: local
    overrides:
      - {key: [gold], limit: {requests: 3, per: 1h}}
      - {key: [root], unlimited: true}
  - {name: shadow, limit: {requests: 1, per: 1h}, mode: local, shadow: true}
  - {name: legacy, limit: {requests: 1, per: 1h}, mode: local, headers: legacy}
  - {name: x, limit: {requests: 1, per: 1h}, mode: local, headers: x}
  - {name: "off", limit: {requests: 1, per: 1h}, mode: local, headers: "off"}
  - {name: costly, limit: {requests: 10, per: 1h}, mode: local, cost: 2, costHeader: x-cost}
  - {name: flight, concurrency: 1, key: [constant]}
  - {name: cluster, limit: {requests: 1, per: 1h}, key: [host], mode: local}
  - {name: fixed, limit: {requests: 1, per: month}, algorithm: fixed, mode: local}
  - {name: strict, limit: {requests: 1, per: 1h}, key: ["header:x-user"], mode: strict}
  - {name: closed, limit: {requests: 1, per: 1h}, mode: strict, onFailure: closed}
  - {name: fall, limit: {requests: 1, per: 1h}, mode: strict, onFailure: local}
  - {name: leased, limit: {requests: 1000, per: 1s}, key: ["header:x-user"], mode: leased}
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
  - {name: limited, endpoints: ["127.0.0.1:1"], rateLimits: [cluster]}
"""


def send(client: Client, path: str, *fields: str) -> None:
    client.send("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: a.test", *fields, "")))


def passes(client: Client, site: Origin, path: str, *fields: str, said: tuple[str, ...] = ()) -> Answer:
    send(client, path, *fields)
    if not site.accepted:
        site.accept()
    site.accepted[0].request()
    site.accepted[0].ok("ok", *said)
    answer = client.answer()
    assert answer.status == 200, answer
    return answer


def refused(client: Client, path: str, *fields: str, status: int = 429) -> Answer:
    send(client, path, *fields)
    answer = client.answer()
    assert answer.status == status, answer
    client.kept()
    return answer


# ---- decided here


def test_what_is_over_the_limit_is_told_when_to_come_back(client: Client, site: Origin, gateway: Gateway) -> None:
    answer = passes(client, site, "/two")
    assert answer.get("ratelimit-policy") == '"two";q=2;w=3600'
    assert answer.get("ratelimit") == '"two";r=1;t=1800'
    assert answer.get("retry-after") is None
    assert passes(client, site, "/two").get("ratelimit") == '"two";r=0;t=3600'
    answer = refused(client, "/two")
    assert answer.get("ratelimit-policy") == '"two";q=2;w=3600'
    assert answer.get("ratelimit") == '"two";r=0;t=3600'
    assert answer.get("retry-after") == "1800"
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.body.startswith(b"429 Too Many Requests\n")
    lines = [line for line in gateway.log() if line["path"] == "/two"]
    assert [(line["status"], line["flags"], line["detail"]) for line in lines] == [
        (200, "-", ""), (200, "-", ""), (429, "RL", "rate_limited"),
    ]  # fmt: skip
    problem = refused(client, "/two", "Accept: application/json, */*;q=0.1")
    assert problem.get("content-type") == "application/problem+json"
    told = json.loads(problem.body)
    assert told.pop("request_id") == problem.get("x-request-id")
    assert told == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "status": 429,
        "title": "Too Many Requests",
        "violated-policies": ["two"],
    }


def test_a_refusal_is_told_to_grpc_where_it_looks(client: Client, site: Origin) -> None:
    client.send(
        "POST /two HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n"
    )
    answer = client.answer()
    assert (answer.status, answer.get("grpc-status"), answer.get("grpc-message")) == (200, "8", "Too Many Requests")
    assert answer.get("retry-after") is not None


def test_a_request_is_charged_to_all_of_its_limits_or_to_none(client: Client, site: Origin) -> None:
    assert passes(client, site, "/both", "X-User: a").get("ratelimit") == '"user";r=2;t=1200, "narrow";r=0;t=3600'
    for _ in range(5):
        # the second limit refuses, and the first keeps what it has
        assert refused(client, "/both", "X-User: a").get("ratelimit") == '"narrow";r=0;t=3600'
    assert passes(client, site, "/both/2", "X-User: a").get("ratelimit") == '"user";r=1;t=2400, "narrow";r=0;t=3600'
    # another method is another key
    passes(client, site, "/shared", "X-User: a")
    assert refused(client, "/both/3", "X-User: a").get("ratelimit") == '"user";r=0;t=3600'


def test_a_part_of_the_key_that_is_missing_skips_or_is_shared(client: Client, site: Origin) -> None:
    for _ in range(3):
        assert passes(client, site, "/skip").get("ratelimit") is None
        assert passes(client, site, "/skip?q=1").get("ratelimit") is None
    passes(client, site, "/skip?q=1", "Cookie: other=2; id=7")
    refused(client, "/skip?q=1", "Cookie: id=7; other=3")
    passes(client, site, "/skip?q=2", "Cookie: id=7")
    for _ in range(3):
        passes(client, site, "/shared")
    refused(client, "/shared")
    passes(client, site, "/shared", "X-User: ")


def test_a_header_of_eight_kilobytes_is_a_key_like_any_other(client: Client, site: Origin) -> None:
    long = "v" * 8000
    for _ in range(3):
        passes(client, site, "/shared", f"X-User: {long}")
    refused(client, "/shared", f"X-User: {long}")
    passes(client, site, "/shared", f"X-User: {long}w")


def test_some_values_of_the_key_have_limits_of_their_own(client: Client, site: Origin) -> None:
    passes(client, site, "/over", "X-User: lead")
    refused(client, "/over", "X-User: lead")
    for left in (2, 1, 0):
        answer = passes(client, site, "/over", "X-User: gold")
        assert answer.get("ratelimit-policy") == '"overridden";q=3;w=3600'
        assert str(answer.get("ratelimit")).startswith(f'"overridden";r={left};')
    refused(client, "/over", "X-User: gold")
    for _ in range(5):
        assert passes(client, site, "/over", "X-User: root").get("ratelimit") is None


def test_a_shadow_refuses_nobody_and_counts(client: Client, site: Origin, gateway: Gateway) -> None:
    for _ in range(3):
        passes(client, site, "/shadow")
    assert gateway.decisions("shadow") == {("allowed", "local"): 1, ("shadow_denied", "local"): 2}


@pytest.mark.parametrize(("style", "prefix"), [("legacy", "ratelimit"), ("x", "x-ratelimit")])
def test_answers_speak_as_it_is_chosen(client: Client, site: Origin, style: str, prefix: str) -> None:
    told = passes(client, site, f"/{style}")
    assert [told.get(f"{prefix}-{what}") for what in ("limit", "remaining", "reset")] == ["1", "0", "3600"]
    assert told.get("ratelimit-policy") is None
    told = refused(client, f"/{style}")
    assert [told.get(f"{prefix}-{what}") for what in ("limit", "remaining", "reset")] == ["1", "0", "3600"]
    assert told.get("retry-after") == "3600"


def test_or_say_nothing(client: Client, site: Origin) -> None:
    assert not [name for name, _ in passes(client, site, "/off").fields if "ratelimit" in name]
    told = refused(client, "/off")
    assert not [name for name, _ in told.fields if "ratelimit" in name]
    assert told.get("retry-after") == "3600"


def test_what_it_took_is_charged_when_it_is_told(client: Client, site: Origin) -> None:
    answer = passes(client, site, "/cost", said=("x-cost: 5",))
    assert str(answer.get("ratelimit")).startswith('"costly";r=8;')
    # three more were charged: 5 are left, of which the next takes 2, and gives one back
    answer = passes(client, site, "/cost", said=("x-cost: 1",))
    assert str(answer.get("ratelimit")).startswith('"costly";r=3;')
    for _ in range(2):
        passes(client, site, "/cost", said=("x-cost: nonsense",))
    refused(client, "/cost")


def test_requests_in_flight_are_counted_while_they_are(connect: Connect, site: Origin) -> None:
    one, two = connect(), connect()
    for _ in range(2):
        send(one, "/flight")
        if not site.accepted:
            site.accept()
        site.accepted[0].request()
        told = refused(two, "/flight")
        assert (told.get("ratelimit-policy"), told.get("ratelimit")) == (
            '"flight";q=1;qu="concurrent-requests"', '"flight";r=0',
        )  # fmt: skip
        assert told.get("retry-after") == "1"
        site.accepted[0].ok()
        assert one.answer().status == 200
    assert passes(two, site, "/flight").status == 200


def test_a_client_that_goes_away_is_in_flight_no_more(connect: Connect, site: Origin, gateway: Gateway) -> None:
    gone = connect()
    send(gone, "/flight")
    origin = site.accept()
    origin.request()
    gone.reset()
    gateway.turn()
    after = connect()
    send(after, "/flight")
    fresh = site.accept()
    fresh.request()
    fresh.ok()
    assert after.answer().status == 200


def test_a_clusters_limit_counts_what_goes_there(connect: Connect, gateway: Gateway, settled: None) -> None:
    limited = Origin(gateway, "limited")
    client = connect()
    assert passes(client, limited, "/cluster").get("ratelimit") == '"cluster";r=0;t=3600'
    refused(client, "/cluster")
    limited.close()


def test_a_month_ends_with_its_last_day(client: Client, site: Origin) -> None:
    answer = passes(client, site, "/fixed")
    assert answer.get("ratelimit-policy") == '"fixed";q=1'
    left = int(str(answer.get("ratelimit")).rpartition("=")[2])
    assert 0 < left <= 31 * 86400
    assert abs(int(str(refused(client, "/fixed").get("retry-after"))) - left) <= 2


def test_a_client_is_who_the_trusted_proxy_says_and_an_ipv6_network(connect: Connect, site: Origin) -> None:
    # port 8081 has one proxy in front: what it wrote last is believed, what stands before is hearsay
    behind, straight = connect("behind"), connect()
    passes(behind, site, "/who", "X-Forwarded-For: 192.0.2.77, 2001:db8:1:2::1")
    passes(behind, site, "/who", "X-Forwarded-For: 192.0.2.78, 2001:db8:1:2:ffff::9")
    refused(behind, "/who", "X-Forwarded-For: 192.0.2.79, 2001:db8:1:2:3:4:5:6")
    passes(behind, site, "/who", "X-Forwarded-For: 192.0.2.79, 2001:db8:1:3::1")
    passes(behind, site, "/who", "X-Forwarded-For: 192.0.2.9")
    # without a proxy nobody is believed: these are all the loopback's
    for number in range(2):
        passes(straight, site, "/who", f"X-Forwarded-For: 192.0.2.{number}")
    refused(straight, "/who", "X-Forwarded-For: 192.0.2.200")
