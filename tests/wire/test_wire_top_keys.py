"""The keys that rate limits meet most, as requests make them: their text, and that what is not looked at counts too."""

from typing import Any

from wirebench import Client, Gateway, Origin

CONFIG = """
listeners:
  - {name: web, port: 8080}
  - {name: behind, port: 8081, trustedHops: 1}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /who}}]
        rateLimits: [who]
        filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.test}}]
      - matches: [{path: {type: PathPrefix, value: /few}}]
        rateLimits: [few]
        filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.test}}]
      - matches: [{path: {type: PathPrefix, value: /many}}]
        rateLimits: [many]
        filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.test}}]
rateLimits:
  - {name: who, limit: {requests: 2, per: 1h}, mode: local}
  - {name: few, limit: {requests: 2, per: 1h}, key: ["header:x-user"], mode: local, missing: skip,
     overrides: [{key: [boss], unlimited: true}]}
  - {name: many, limit: {requests: 100, per: 1h}, key: [path], mode: local}
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
"""


def ask(client: Client, path: str, *fields: str) -> int:
    client.send("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: top.test", *fields, "")))
    return client.answer().status


def found(gateway: Gateway, mark: str) -> dict[str, tuple[int, int]]:
    """Requests and refusals by key, of those keys that begin so."""
    rows: list[dict[str, Any]] = gateway.call(lambda engine: engine.top_keys())
    texts = [(row["key"].decode("ascii"), row) for row in rows]
    return {text: (row["requests"], row["refused"]) for text, row in texts if text.startswith(mark)}


def test_an_address_stands_as_it_is_counted(gateway: Gateway, site: Origin) -> None:
    client = gateway.client("behind")
    for address in ("192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1:2:3::9", "2001:DB8:1:2:4::9"):
        ask(client, "/who", f"X-Forwarded-For: {address}")
    assert found(gateway, "clientAddress") == {"clientAddress=192.0.2.7": (3, 1), "clientAddress=2001:db8:1:2::/64": (2, 0)}
    client.close()


def test_what_is_skipped_or_unlimited_is_not_met(gateway: Gateway, client: Client, site: Origin) -> None:
    for fields in ((), ("X-User: boss",), ("X-User: bob",), ("X-User: bob",), ("X-User: bob",), ("X-User: bob",)):
        ask(client, "/few", *fields)
    ((text, counted),) = found(gateway, "header:x-user").items()
    assert counted == (4, 2) and "bob" not in text and len(text) == len("header:x-user=#") + 12


def test_requests_that_are_not_looked_at_count_too(gateway: Gateway, client: Client, site: Origin) -> None:
    sent = 0
    for turn in range(1500):
        sent += 1
        ask(client, "/many/hot" if turn % 3 else f"/many/{turn}")
    counts = found(gateway, "path=")
    assert len(counts) <= 128
    assert sent - 32 <= sum(requests for requests, _ in counts.values()) <= sent, "no more than one gap is missing"
    requests, refused = counts["path=/many/hot"]
    assert 600 < requests < 1400 and requests - 250 < refused + 100 < requests + 250
