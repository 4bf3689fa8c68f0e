"""From samples to medians, ratios, verdicts and the table. Pure functions; nothing is started or read here."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One gateway in one round of one cell."""

    done: int
    errors: int
    user_us: float  # CPU microseconds over all processes of the gateway
    system_us: float
    seconds: float

    @property
    def cost(self) -> float:
        """CPU microseconds per request."""
        return (self.user_us + self.system_us) / self.done if self.done else float("nan")

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def busy(self) -> float:
        """Share of its core that the gateway used."""
        return (self.user_us + self.system_us) / (self.seconds * 1e6) if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must not exceed. `against` names the column it is divided by; empty: the figure stands for itself.
    `least`: the figure is work per CPU second instead of its reciprocal, and must not fall below the limit."""

    limit: float
    against: str = ""
    unit: str = "x"
    least: bool = False

    def __str__(self) -> str:
        if self.least:
            return f"{self.unit}: >= {self.limit:.2f} x {self.against}"
        return f"<= {self.limit:.2f} x {self.against}" if self.against else f"<= {self.limit:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    cell: str
    bar: Bar
    measured: float | None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.bar.limit if self.bar.least else self.measured <= self.bar.limit

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def ratios(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[float]:
    """Ours against theirs in each round: what disturbed a round disturbed both."""
    return [a.cost / b.cost for a, b in zip(ours, theirs, strict=True) if a.done and b.done]


def judge(cell: str, bar: Bar, ours: Sequence[Sample] | None, theirs: Sequence[Sample] | None) -> Verdict:
    """The verdict on one bar of a cell; without a figure when a column is missing or any request went wrong."""
    if not ours:
        return Verdict(cell, bar, None, "ours was not measured")
    if not theirs:
        return Verdict(cell, bar, None, f"{bar.against} was not measured")
    wrong = sum(sample.errors for sample in ours)
    if wrong:
        return Verdict(cell, bar, None, f"{wrong} requests of ours went wrong")
    wrong = sum(sample.errors for sample in theirs)
    if wrong:
        return Verdict(cell, bar, None, f"{wrong} requests of {bar.against} went wrong")
    each = ratios(ours, theirs)
    if bar.least:
        each = [1 / ratio for ratio in each]
    if not each:
        return Verdict(cell, bar, None, "no request was answered")
    return Verdict(cell, bar, median(each), f"rounds {min(each):.2f} to {max(each):.2f}")


def orders(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Whose turn it is in each round: all of them, the first place going round."""
    return [[*names[i % len(names) :], *names[: i % len(names)]] for i in range(rounds)] if names else []


def column(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians of one gateway over its rounds."""
    return {
        "user_us": median([s.user_us / s.done for s in samples if s.done]),
        "system_us": median([s.system_us / s.done for s in samples if s.done]),
        "cost_us": median([s.cost for s in samples if s.done]),
        "rate": median([s.rate for s in samples]),
        "busy": median([s.busy for s in samples]),
        "errors": sum(s.errors for s in samples),
    }


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def cell_table(
    samples: Mapping[str, Sequence[Sample]], latency: Mapping[str, Mapping[str, float]], ours: str, work: str = "request"
) -> str:
    """One cell side by side: cost, rate, latency, and ours against each. `work` is what was counted; what is no request has no
    latency and is told per CPU second too."""
    is_request = work == "request"
    rows = [["gateway", "user us", "system us", f"CPU us/{work}", "ours / it", f"{work}s/s", "core busy"]]
    rows[0] += ["p50 us", "p99 us", "errors"] if is_request else [f"{work}s/CPU s", "errors"]
    for name, each in samples.items():
        figures = column(each)
        against = f"{median(ratios(samples[ours], each)):.2f}" if ours in samples and name != ours else ""
        slow = latency.get(name)
        row = [
            name,
            f"{figures['user_us']:.2f}",
            f"{figures['system_us']:.2f}",
            f"{figures['cost_us']:.2f}",
            against,
            f"{figures['rate']:,.0f}",
            f"{figures['busy']:.0%}",
        ]
        if is_request:
            row += [f"{slow['p50_us']:,.0f}" if slow else "", f"{slow['p99_us']:,.0f}" if slow else ""]
        else:
            row.append(f"{1e6 / figures['cost_us']:,.0f}")
        rows.append([*row, f"{figures['errors']:.0f}"])
    return markdown(rows)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    rows = [["cell", "bar", "measured", "verdict", ""]]
    for verdict in verdicts:
        bar = verdict.bar
        measured = ""
        if verdict.measured is not None:
            measured = f"{verdict.measured:.2f}" if bar.against else f"{verdict.measured:.4g} {bar.unit}"
        word = {None: "not measured", True: "met", False: "MISSED"}[verdict.met]
        rows.append([verdict.cell, str(bar), measured, word, verdict.note])
    return markdown(rows)
