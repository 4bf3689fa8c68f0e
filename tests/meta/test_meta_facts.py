"""Rules about the facts that come out of the gateway: one table of metrics, complete and without doubles."""

import re

from gateway._core import counters
from gateway.observe import metrics


def shown(metric: metrics.Metric) -> set[str]:
    """Every name under which a metric is scraped."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}.get(metric.kind, ("",))
    return {metric.name + suffix for suffix in suffixes}


def test_no_two_metrics_share_a_name() -> None:
    names = [name for metric in metrics.TABLE for name in shown(metric)]
    assert len(names) == len(set(names))
    families = [metric.name for metric in metrics.TABLE]
    assert len(families) == len(set(families))


def test_every_metric_says_what_it_is() -> None:
    for metric in metrics.TABLE:
        assert re.fullmatch(r"isthmus_[a-z][a-z0-9_]*[a-z0-9]", metric.name), metric.name
        assert metric.kind in ("counter", "gauge", "histogram", "info"), metric.name
        assert not metric.name.endswith(("_total", "_bucket", "_sum", "_count", "_info")), (
            f"{metric.name}: the kind adds its suffix"
        )
        assert re.fullmatch(r"[A-Z0-9][^\n]{10,}\.", metric.help), f"{metric.name}: {metric.help!r}"


def test_every_metric_that_a_module_names_is_in_the_table() -> None:
    named = [value for value in vars(metrics).values() if isinstance(value, metrics.Metric)]
    assert named and set(named) <= set(metrics.TABLE)


def test_every_word_of_a_worker_has_its_metric() -> None:
    names = {metric.name for metric in metrics.TABLE}
    assert {metrics.PREFIX + name for name, _, _ in counters.SCALARS} <= names
