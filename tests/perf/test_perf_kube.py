"""The bench of a large cluster: its objects mean what it takes them to mean, and a small run of it comes to an end."""

from __future__ import annotations

import pytest
from kube import Cluster

from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.store import Store, decode_value
from gateway.sources.kubernetes.translate import translate
from perf.kube import Found, gateway_objects, host_of, main, parse_options, part, route_object, service_objects, table


def test_every_route_leads_to_pods() -> None:
    cluster = Cluster()
    cluster.store = Store()
    for each in (*gateway_objects(80), *(one for number in range(50) for one in service_objects(number, 3, 9000))):
        kind = KINDS[each["kind"]]
        cluster.store.put(kind, decode_value(kind, each))
    for number in range(60):
        cluster.store.put(KINDS["HTTPRoute"], decode_value(KINDS["HTTPRoute"], route_object(number, 50)))
    found = translate(cluster.store)
    assert not found.problems and len(found.routes) == 60 and len(found.clusters) == 50
    assert {len(each.endpoints) for each in found.clusters} == {3}
    assert found.routes[0].hostnames[0] == host_of(0)  # type: ignore[union-attr]


def test_numbers_that_make_no_cluster_are_refused() -> None:
    for wrong in (["--services", "70"], ["--routes", "100", "--services", "50"]):
        with pytest.raises(SystemExit):
            parse_options(wrong)


def test_the_table_names_every_bar() -> None:
    assert part([3.0, 1.0, 2.0], 0.5) == 2.0
    shown = table(Found(cold_start_s=1.5, route_ms=[50.0], slice_ms=[20.0], added=3, added_s=1.0))
    assert "1.5 s" in shown and "p99 100 ms" in shown and "0 errors" in shown


@pytest.mark.slow
def test_a_small_run(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--routes", "150", "--services", "50", "--endpoints", "2", "--changes", "3", "--added", "10"]
    assert main(small) == 0
    shown = capsys.readouterr().out
    assert "150 HTTPRoutes" in shown and "10 routes added one by one" in shown and " 0 errors" in shown
