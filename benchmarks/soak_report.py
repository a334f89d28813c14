"""What the hours of a soak say: verdicts, and the picture."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

FIRST_DAY: Final = 24
MOST: Final = 1.2
"""How many times the first day's seconds the last day's may be."""
FLAT: Final = 0.05
"""What a size may grow by in the last three days and still be called flat."""
DAILY, GC = "maintain", "mlflow gc"
SERVERS: Final = ("postgres", "mlflow")
SIZES: Final = ("data", "metadata", "catalog", "mlflow", "artefacts", "scratch", "temporary")
Line = Mapping[str, Any]


def lines(done: Sequence[Line]) -> list[dict[str, Any]]:
    """Verdicts, then every hour."""
    return [*verdicts(done), *(hour_line(line) for line in done)]


def verdicts(done: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """The last day beside the first: seconds as a whole and by job, then every size."""
    first, last = steady(done[:FIRST_DAY]), steady(done[-FIRST_DAY:])
    for clock in ("wall", "cpu"):
        yield seconds_line(f"all jobs, {clock}", total(clock), first, last)
    for job in [name for name in done[0]["wall"] if name not in (DAILY, GC)]:
        yield seconds_line(f"{job}, cpu", of_job("cpu", job), first, last)
    for server in SERVERS:
        yield seconds_line(f"{server}, cpu", of_job("cpu", server), first, last)
    for name in SIZES:
        yield size_line(name, "MB", np.array([line["mb"][name] for line in done]))
    for name in done[0]["counts"]:
        yield size_line(name, "", np.array([line["counts"][name] for line in done], float))
    for name in done[0]["memory_mb"]:
        yield size_line(f"memory, {name}", "MB", np.array([at["memory_mb"][name] for at in done]))


def steady(done: Sequence[Line]) -> list[Line]:
    """Hours but those right after a start, which compile and connect for the first time."""
    return [line for line in done if not line["after_start"]]


def total(clock: str) -> Callable[[Line], float]:
    """Seconds of an hour's jobs, with what the servers computed for them, but for `maintain`."""
    return lambda line: sum(s for name, s in line[clock].items() if name not in (DAILY, GC))


def of_job(clock: str, job: str) -> Callable[[Line], float]:
    return lambda line: float(line[clock][job])


def seconds_line(
    case: str, seconds: Callable[[Line], float], first: Sequence[Line], last: Sequence[Line]
) -> dict[str, Any]:
    then, now = (float(np.mean([seconds(line) for line in day])) for day in (first, last))
    ratio = now / then if then else float("nan")
    said = "stays" if ratio <= MOST else "grows"
    return head(case, "s per hour, last day", now, "first day", then, ratio) | {
        "quality": {"verdict": said, "hours": [len(first), len(last)]}
    }


def size_line(name: str, unit: str, sizes: np.ndarray) -> dict[str, Any]:
    """Where a size begins and ends, and what it grew by in an hour of the first and last days."""
    third = 3 * FIRST_DAY
    early, late = sizes[: third + 1], sizes[-third - 1 :]
    then, now = slope(early), slope(late)
    grown = late[-1] - late[0]
    level = abs(late[0]) or 1.0
    if abs(grown) <= FLAT * level:
        said = "flat"
    elif now <= MOST * then:
        said = "grows evenly"
    else:
        said = "grows faster"
    made = head(f"size, {name}", f"{unit} at the end".strip(), sizes[-1], "first hour", sizes[0])
    growth = [round(float(value), 4) for value in (then, now)]
    return made | {"quality": {"verdict": said, "growth_per_hour": growth}}


def slope(sizes: np.ndarray) -> float:
    """Growth in an hour by least squares, so that a daily clean-up does not decide."""
    return float(np.polyfit(np.arange(len(sizes)), sizes, 1)[0])


def head(
    case: str, unit: str, ours: float, peer: str, theirs: float, ratio: float | None = None
) -> dict[str, Any]:
    """A result line; here ``ratio`` is the last day's through the first's: below 1.2 is good."""
    return {
        "bench": "soak", "case": case, "ours": round(float(ours), 3), "peer": peer,
        "peer_version": "same run", "theirs": round(float(theirs), 3), "unit": unit,
        "ratio": None if ratio is None else round(ratio, 3), "ours_peak_mb": None,
        "theirs_peak_mb": None, "quality": {}, "repetitions": 1, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def hour_line(line: Line) -> dict[str, Any]:
    """An hour as a result line; sizes by table only after maintenance."""
    seconds = total("wall")(line)
    left_out = () if DAILY in line["wall"] else ("tables",)
    kept = {key: value for key, value in line.items() if key not in ("hour", "ended", *left_out)}
    return head(f"hour {line['hour']}", "s", seconds, "none", 0.0) | {
        "theirs": None,
        "quality": kept,
    }


def picture(done: Sequence[Line]) -> Figure:
    """Seconds an hour; sizes; growth that is data or page, apart."""
    figure = Figure(figsize=(9.0, 9.0), layout="constrained")
    days = (np.arange(len(done)) + 1) / FIRST_DAY
    times, kept, made = figure.subplots(3, 1, sharex=True)
    for clock, words in (("wall", "wall seconds"), ("cpu", "CPU seconds, servers included")):
        values = np.array([total(clock)(line) for line in done])
        [drawn] = times.plot(days, values, linewidth=0.7, alpha=0.5)
        means = [values[n : n + FIRST_DAY].mean() for n in range(0, len(done), FIRST_DAY)]
        times.stairs(means, np.append(days[::FIRST_DAY] - days[0], days[-1]), linewidth=2,
                     color=drawn.get_color(), label=f"{words}, and their daily mean")  # fmt: skip
    times.set(ylabel="seconds an hour", ylim=(0, None), title="Seven jobs of an hour")
    panels = (
        (kept, "What must stay small", (
            ("metadata", "Iceberg metadata"), ("catalog", "catalog database"),
            ("mlflow", "MLflow database"), ("scratch", "scratch"))),
        (made, "What an hour leaves", (
            ("data", "rows of the tables"), ("artefacts", "models, plots and pages"))),
    )  # fmt: skip
    for panel, title, names in panels:
        for name, words in names:
            panel.plot(days, [line["mb"][name] for line in done], label=words)
        panel.set(ylabel="MB", ylim=(0, None), title=title)
    made.set_xlabel("simulated days")
    for panel in (times, kept, made):
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left", fontsize=8)
    return figure
