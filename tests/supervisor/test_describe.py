"""The tables of all workers as one."""

from gateway.supervisor.describe import merge_clusters


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
