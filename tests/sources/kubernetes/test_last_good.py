"""The file of the objects that were known last: whole, for its owner alone, or of no use."""

import os
from pathlib import Path

import pytest
from kube import gateway, make_pair, route, secret, service, store_of

from gateway.sources.kubernetes import last_good
from gateway.sources.kubernetes.last_good import Unusable
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.store import Store
from gateway.sources.kubernetes.translate import translate

HTTP = "{name: h, port: 80, protocol: HTTP}"
TEXTS = (
    "kind: GatewayClass\nmetadata: {name: isthmus}\nspec: {controllerName: isthmus.io/gateway-controller}",
    gateway(listeners="[{name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}, " + HTTP + "]"),
    service("web", 80),
    secret("s", make_pair("any.test")),
    route("good", "[{timeouts: {request: 10s}, retry: {backoff: 50ms}, backendRefs: [{name: web, port: 80}]}]"),
    route("half", "[{matches: [{path: {value: /x}}], filters: [{type: Nonsense}]}, {matches: [{path: {type: Odd}}]}]"),
    route("newer", "[{fromTheFuture: 1, backendRefs: [{name: web, port: 80}]}]"),
    "kind: HTTPRoute\nmetadata: {name: broken}\nspec: {hostnames: 7}",
    "kind: Ingress\nmetadata: {name: i}\nspec: {ingressClassName: isthmus, rules: [{host: i.test, http: {paths: "
    "[{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}",
)


def restored(path: Path) -> Store:
    store = Store()
    for kind, decoded in last_good.read(path).objects:
        store.put(kind, decoded)
    return store


def test_what_comes_back_is_what_was_written(tmp_path: Path) -> None:
    """Flaws included: a rule that is answered 500 is so afterwards, and a broken object is told as one."""
    store = store_of(*TEXTS)
    assert store.flaws and store.broken
    last_good.write(tmp_path / "f", store)
    again = restored(tmp_path / "f")
    assert (again.flaws, again.broken, again.counts()) == (store.flaws, store.broken, store.counts())
    one, other = translate(store, Options()), translate(again, Options())
    assert one == other
    assert len(other.routes) > 3 and other.pems


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    before = os.umask(0)
    try:
        last_good.write(path, store_of(*TEXTS))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(Unusable, match="others may read it"):
        last_good.read(path)
    last_good.write(path, store_of())
    assert path.stat().st_mode & 0o777 == 0o600 and last_good.read(path).objects == []
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_what_is_not_whole_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    last_good.write(path, store_of(*TEXTS))
    whole = path.read_bytes()
    for bad in (b"", whole[:-1], whole[: len(whole) // 2], whole.replace(b"web", b"wob", 1), b"{}\n", b"\xff" * 100, whole + b"x"):
        path.write_bytes(bad)
        with pytest.raises(Unusable):
            last_good.read(path)
    path.unlink()
    with pytest.raises(Unusable, match="No such file"):
        last_good.read(path)
    (tmp_path / "real").write_bytes(whole)
    (tmp_path / "real").chmod(0o600)
    path.symlink_to(tmp_path / "real")
    with pytest.raises(Unusable):
        last_good.read(path)


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    last_good.write(path, store_of(TEXTS[0]))
    whole = path.read_bytes()
    monkeypatch.setattr(last_good, "MOST_BYTES", 100)
    with pytest.raises(Unusable, match="MiB of objects"):
        last_good.write(path, store_of(*TEXTS))
    assert path.read_bytes() == whole
    with pytest.raises(Unusable, match="No such file"):
        last_good.write(tmp_path / "nowhere" / "f", Store())
