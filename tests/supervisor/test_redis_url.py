"""URLs of stores: what they mean, what is wrong with one, and that no secret of one is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.supervisor.redis_url import RedisAddress, parse_redis_url


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://h", RedisAddress(hosts=(("h", 6379),))),
        ("redis://127.0.0.1:7000/3", RedisAddress(hosts=(("127.0.0.1", 7000),), db=3)),
        ("redis://h/", RedisAddress(hosts=(("h", 6379),))),
        ("redis://h?db=2", RedisAddress(hosts=(("h", 6379),), db=2)),
        ("redis://[::1]:7000", RedisAddress(hosts=(("::1", 7000),))),
        ("redis://:pa%40ss@h", RedisAddress(hosts=(("h", 6379),), password="pa@ss")),
        ("redis://:a/b@h", RedisAddress(hosts=(("h", 6379),), password="a/b")),
        ("redis://me:pa:s@s@h:1", RedisAddress(hosts=(("h", 1),), user="me", password="pa:s@s")),
        ("rediss://h?ca=/etc/ca.pem", RedisAddress(hosts=(("h", 6379),), tls=True, ca="/etc/ca.pem")),
        ("rediss://h?cert=c&key=k", RedisAddress(hosts=(("h", 6379),), tls=True, cert="c", key="k")),
        ("unix:///run/r.sock", RedisAddress(path="/run/r.sock")),
        ("unix://me:pw@/run/r.sock?db=4", RedisAddress(path="/run/r.sock", user="me", password="pw", db=4)),
        ("unix:///run/a@b.sock", RedisAddress(path="/run/a@b.sock")),
        ("redis://a,b:7,[::2]/1?sentinel=main",
         RedisAddress(hosts=(("a", 26379), ("b", 7), ("::2", 26379)), db=1, sentinel="main")),
        ("redis://:p@a?sentinel=m&sentinelUser=u&sentinelPassword=s",
         RedisAddress(hosts=(("a", 26379),), password="p", sentinel="m", sentinel_user="u", sentinel_password="s")),
        ("redis://a:1,b:2?cluster=true", RedisAddress(hosts=(("a", 1), ("b", 2)), is_cluster=True)),
        ("redis://a?cluster=false", RedisAddress(hosts=(("a", 6379),))),
    ],
)  # fmt: skip
def test_what_a_url_means(url: str, meant: RedisAddress) -> None:
    assert parse_redis_url(url) == meant


@pytest.mark.parametrize(
    ("url", "flaw"),
    [
        ("", "must begin with"),
        ("redis://", "must begin with"),
        ("http://h", "must begin with"),
        ("redis:h", "must begin with"),
        ("redis://h:0", "each host is"),
        ("redis://h:65536", "each host is"),
        ("redis://h:port", "each host is"),
        ("redis://a b", "each host is"),
        ("redis://::1", "each host is"),
        ("redis://pw@h", "USER:PASSWORD"),
        ("redis://h/x", "the database is a number"),
        ("redis://h/-1", "the database is a number"),
        ("redis://h/1?db=2", "not in both"),
        ("redis://a,b", "several hosts"),
        ("redis://h?ca=x", "belongs to rediss"),
        ("rediss://h?cert=x", "come together"),
        ("redis://h?cluster=yes", "true or false"),
        ("redis://h?clutser=true", "did you mean ?cluster="),
        ("redis://h?zzz=1", "known are"),
        ("redis://h?cluster", "is not known"),
        ("redis://h?db=1&db=2", "stands twice"),
        ("redis://h/1?cluster=true", "database 0 alone"),
        ("redis://h?cluster=true&sentinel=m", "exclude each other"),
        ("redis://h?sentinel=", "must name the primary"),
        ("redis://h?sentinelPassword=x", "and that ?sentinel="),
        ("redis://h?sentinel=m&sentinelUser=x", "needs ?sentinelPassword="),
        ("unix://run/r.sock", "absolute path"),
        ("unix:///", "absolute path"),
        ("unix:///s?cluster=true", "leads to one server"),
        ("unix:///s?sentinel=m", "leads to one server"),
    ],
)
def test_what_is_wrong_with_one(url: str, flaw: str) -> None:
    with pytest.raises(ValueError, match=flaw.replace("?", r"\?")):
        parse_redis_url(url)


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{SECRET}@h/1",
        f"unix://:{SECRET}@/run/s",
        f"redis://:{SECRET}@a,b?sentinel=m&sentinelPassword={SECRET}",
        f"rediss://:{SECRET}@h?cluster=true",
    ],
)
def test_no_secret_is_shown(url: str) -> None:
    address = parse_redis_url(url)
    assert SECRET not in repr(address) + str(address) + address.shown + str(list(address.__rich_repr__()))
    assert SECRET in f"{address.password}{address.sentinel_password}"


@given(st.sampled_from(("redis://", "rediss://", "unix://")), st.text(max_size=30), st.text(max_size=30))
def test_any_url_is_understood_or_told_what_is_wrong_and_never_shown(scheme: str, place: str, query: str) -> None:
    try:
        parse_redis_url(f"{scheme}u:{SECRET}@{place}?{query}")
    except ValueError as flaw:
        assert SECRET not in str(flaw)


def test_what_is_shown() -> None:
    assert parse_redis_url("redis://[::1],b?sentinel=m").shown == "redis://[::1]:26379,b:26379 (Sentinels of 'm')"
    assert parse_redis_url("rediss://x:y@h?cluster=true").shown == "rediss://h:6379 (Cluster)"
    assert parse_redis_url("unix:///run/s").shown == "unix:///run/s"
