"""The tables of all workers as one."""

from gateway.supervisor.describe import merge_clusters, merge_top


def test_counts_are_added_and_what_is_true_in_one_worker_is_true() -> None:
    first = [{"name": "b", "id": 9, "endpoints": [{"address": "10.0.0.1:80", "weight": 2, "active": 3, "ejected": False}]}]
    second = [
        {"name": "b", "id": 9, "endpoints": [{"address": "10.0.0.1:80", "weight": 2, "active": 4, "ejected": True}]},
        {"name": "a", "id": 8, "endpoints": []},
    ]
    assert merge_clusters([(0, first), (1, second)]) == [
        {"name": "a", "id": 8, "endpoints": []},
        {"name": "b", "id": 9, "endpoints": [{"address": "10.0.0.1:80", "weight": 2, "active": 7, "ejected": True}]},
    ]


def test_no_worker_is_no_row() -> None:
    assert merge_clusters([]) == []


def test_top_keys_of_all_workers_are_one_list_for_each_limit() -> None:
    def row(limit: int, hash_: str, key: str, requests: int, refused: int, ms: int) -> dict[str, object]:
        return {"limit": limit, "hash": hash_, "key": key, "requests": requests, "refused": refused, "error": 0, "ms": ms}

    one = f"path=/a,route={7:016x}"
    first = [row(1, "a", one, 10, 2, 5000), row(1, "b", "path=/b", 12, 0, 5000), row(9, "a", "constant", 1, 1, 10)]
    second = [row(1, "a", one, 30, 1, 80_000), row(2, "a", "constant", 4, 4, 100)]
    names = {1: ("rateLimit", "few"), 2: ("rateLimit", "all"), 7: ("route", "shop")}
    got = merge_top([(0, first), (1, second)], names, 1)
    assert got == [
        {
            "name": "all",
            "seconds": 1.0,
            "keys": [{"key": "constant", "requests": 4, "refused": 4, "error": 0, "requests_per_s": 4.0}],
        },
        {
            "name": "few",
            "seconds": 80.0,
            "keys": [{"key": "path=/a,route=shop", "requests": 40, "refused": 3, "error": 0, "requests_per_s": 0.5}],
        },
    ]
    assert [len(limit["keys"]) for limit in merge_top([(0, first), (1, second)], names, 9)] == [1, 2]
