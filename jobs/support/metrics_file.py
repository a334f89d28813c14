"""What a run leaves for Prometheus: a file for each job and model, in the text exposition format.

A job is gone before anybody could scrape it, so it leaves a file in the folder RANKMILL_METRICS,
for the textfile collector of Prometheus' node exporter. The next run of the same job and model
replaces the file, whole. What only a run that was done can tell (:data:`KEPT`) is taken over from
the file before: while a job fails, the rules must not forget since when.

All are gauges and carry ``batch_job``, since ``job`` is Prometheus' own label; ``model`` and
``evaluation`` where a run was asked for them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from feature_store import hours as hr
from jobs.support.stopwatch import STEPS

if TYPE_CHECKING:
    from jobs.support.summary import Summary

__all__ = [
    "CHAMPION", "FOLDER", "KEPT", "METRICS", "NDCG", "Ended", "Sample", "champion_of",
    "exposition", "file_name", "samples", "write_metrics",
]  # fmt: skip

FOLDER: Final = "RANKMILL_METRICS"
"""The variable that names the folder; no file is written without it."""

CHAMPION: Final = "champion"
NDCG: Final = "ndcg_at_10"
"""Keys of a summary's details: see :func:`champion_of`; values by role, then by label."""

METRICS: Final[Mapping[str, str]] = {
    "rankmill_job_start_timestamp_seconds": "When the last run began.",
    "rankmill_job_end_timestamp_seconds": "When the last run ended.",
    "rankmill_job_duration_seconds": "How long the last run took.",
    "rankmill_job_step_seconds": "How long each step of the last run took.",
    "rankmill_job_exit_status":
        "Exit status of the last run: 0 done, 1 failed, 2 bad arguments, 3 refused.",
    "rankmill_job_status": "1 for the status of the last run's summary.",
    "rankmill_job_hour_timestamp_seconds": "Start of the last hour that the last run was for.",
    "rankmill_job_lag_seconds": "From the end of that hour to the end of the run.",
    "rankmill_job_rows_in": "Rows that the last run read; only of a run that was done.",
    "rankmill_job_rows_out": "Rows that the last run wrote; only of a run that was done.",
    "rankmill_job_rejected_rows": "Rows that the last run rejected, by reason.",
    "rankmill_job_last_success_timestamp_seconds": "When the last run that was done ended.",
    "rankmill_job_last_success_hour_timestamp_seconds":
        "Start of the last hour of the last run that was done.",
    "rankmill_champion_version": "Version of the champion.",
    "rankmill_champion_data_hour_timestamp_seconds": "Start of the last hour that it has seen.",
    "rankmill_champion_age_seconds": "From that hour to the hour of the run.",
    "rankmill_champion_promoted_timestamp_seconds": "When it was promoted, or rolled back to.",
    "rankmill_ndcg_at_10": "NDCG@10 on the hours that the last run judged, by role and label.",
}  # fmt: skip
"""Every metric, with its help."""

KEPT: Final = frozenset(
    name for name in METRICS if name.startswith(("rankmill_job_last_", "rankmill_champion_"))
)
"""Metrics that stay as they were when a run cannot tell them."""

_TELLS_ONLY: Final = ("dry_run", "history", "span", "models")
"""Arguments of runs that commit nothing to the schedule: they leave the file as it is."""

_MOST: Final = 40
"""Values of one label that a file holds; the rest is summed under ``other``."""

_HOUR_SECONDS: Final = 3600
_SAMPLE: Final = re.compile(r"(\w+)\{.*\} [-+.\de]+")


@dataclass(frozen=True)
class Ended:
    """A run that has ended.

    Attributes:
        code: its exit status.
        started, ended: as Unix times.
    """

    summary: Summary
    arguments: argparse.Namespace
    code: int
    started: float
    ended: float

    @property
    def labels(self) -> dict[str, str]:
        """What every sample of the run carries; what the run was asked for, not what it found, so
        that a run that fails at once replaces the file of the one before."""
        asked = vars(self.arguments)
        known = {
            "batch_job": self.summary.job,
            "model": asked.get("name") or asked.get("model"),
            "evaluation": asked.get("evaluation"),
        }
        return {label: str(value) for label, value in known.items() if value}

    @property
    def hour(self) -> str | None:
        """The last hour that the run was for: its summary's, else the one asked for."""
        asked = vars(self.arguments)
        named = [*self.summary.hours[-1:], asked.get("hour"), asked.get("to_hour")]
        return next((hour for hour in named if hour and _is_hour(hour)), None)


@dataclass(frozen=True)
class Sample:
    """One value of a metric; ``labels`` beside those of the run."""

    name: str
    value: float
    labels: Mapping[str, str]

    def line(self) -> str:
        """
        >>> Sample("rows", 2.0, {"reason": 'a "b"'}).line()
        'rows{reason="a \\\\"b\\\\""} 2.0'
        """
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in self.labels.items())
        return f"{self.name}{{{pairs}}} {self.value!r}"


def champion_of(
    version: int, tags: Mapping[str, str], promoted: dt.datetime | None = None
) -> dict[str, Any]:
    """What a summary's details say of a champion, by its number, the tags of its version, and when
    it was promoted."""
    return {
        "version": version,
        "data_hour": tags.get("data_hour"),
        "promoted_at": promoted.isoformat() if promoted else None,
    }


def write_metrics(ended: Ended) -> Path | None:
    """Replace the file of the run's job and model; None where no file is wanted.

    Raises:
        OSError: where the folder is not there or cannot be written to.
    """
    folder = os.environ.get(FOLDER)
    if not folder or any(vars(ended.arguments).get(name) for name in _TELLS_ONLY):
        return None
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"{FOLDER}={folder} is no folder; make it, or unset the variable")
    path = Path(folder) / file_name(ended.labels)
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    # The collector reads every file that ends in .prom, whenever it likes.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.write_text(exposition(list(samples(ended)), before), encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def file_name(labels: Mapping[str, str]) -> str:
    """
    >>> file_name({"batch_job": "evaluate", "model": "gbdt_ranker", "evaluation": "offline"})
    'rankmill_evaluate_gbdt_ranker_offline.prom'
    """
    return f"rankmill_{re.sub(r'[^A-Za-z0-9_-]', '_', '_'.join(labels.values()))}.prom"


def exposition(told: list[Sample], before: str = "") -> str:
    """The text of a file: ``told``, and of ``before`` what is :data:`KEPT` and was not told now."""
    lines: dict[str, list[str]] = {name: [] for name in METRICS}
    for sample in told:
        lines[sample.name].append(sample.line())
    for line in before.split("\n"):
        found = _SAMPLE.fullmatch(line)
        if found and found[1] in KEPT and not any(sample.name == found[1] for sample in told):
            lines[found[1]].append(line)
    return "".join(
        f"# HELP {name} {METRICS[name]}\n# TYPE {name} gauge\n" + "".join(f"{x}\n" for x in values)
        for name, values in lines.items()
        if values
    )


def samples(ended: Ended) -> Iterator[Sample]:
    """Everything that the run tells; what is not known, or not finite, is left out."""
    common = ended.labels
    for name, value, labels in (*_of_job(ended), *_of_champion(ended), *_of_quality(ended)):
        if value is not None and math.isfinite(value):
            yield Sample(name, float(value), {**common, **labels})


_Told = Iterator[tuple[str, float | None, Mapping[str, str]]]


def _of_job(ended: Ended) -> _Told:
    summary, done = ended.summary, ended.code == 0
    told: dict[str, float | None] = {
        "start_timestamp_seconds": ended.started,
        "end_timestamp_seconds": ended.ended,
        "duration_seconds": summary.seconds,
        "exit_status": ended.code,
    }
    start = None if ended.hour is None else _start(ended.hour)
    if start is not None:
        told["hour_timestamp_seconds"] = start
        told["lag_seconds"] = ended.ended - (start + _HOUR_SECONDS)
    if done:
        told |= {
            "rows_in": summary.rows_in,
            "rows_out": summary.rows_out,
            "last_success_timestamp_seconds": ended.ended,
            "last_success_hour_timestamp_seconds": start,
        }
    for name, value in told.items():
        yield f"rankmill_job_{name}", value, {}
    yield "rankmill_job_status", 1, {"status": summary.status}
    for reason, count in _bounded(summary.rejected).items():
        yield "rankmill_job_rejected_rows", count, {"reason": reason}
    for step, seconds in _bounded(summary.details.get(STEPS, {})).items():
        yield "rankmill_job_step_seconds", seconds, {"step": step}


def _of_champion(ended: Ended) -> _Told:
    known = ended.summary.details.get(CHAMPION)
    if not known:
        return
    promoted = known["promoted_at"]
    yield "rankmill_champion_version", float(known["version"]), {}
    if promoted:
        instant = dt.datetime.fromisoformat(promoted).timestamp()
        yield "rankmill_champion_promoted_timestamp_seconds", instant, {}
    if known["data_hour"]:
        seen = _start(known["data_hour"])
        yield "rankmill_champion_data_hour_timestamp_seconds", seen, {}
        if ended.hour is not None:
            yield "rankmill_champion_age_seconds", _start(ended.hour) - seen, {}


def _of_quality(ended: Ended) -> _Told:
    for role, values in ended.summary.details.get(NDCG, {}).items():
        for label, value in values.items():
            yield "rankmill_ndcg_at_10", value, {"role": role, "label": label}


def _bounded(values: Mapping[str, float]) -> dict[str, float]:
    """``values``, of which no more than the largest :data:`_MOST` keep their name."""
    if len(values) <= _MOST:
        return dict(values)
    ordered = sorted(values, key=lambda name: (-values[name], name))
    rest = sum(values[name] for name in ordered[_MOST - 1 :])
    return {**{name: values[name] for name in ordered[: _MOST - 1]}, "other": rest}


def _is_hour(text: str) -> bool:
    try:
        hr.parse(text)
    except hr.HourError:
        return False
    return True


def _start(hour: str) -> float:
    return hr.start_of(hour).timestamp()


def _escaped(text: str) -> str:
    """A label's value: backslash, quote and line feed would end it, or the line."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
