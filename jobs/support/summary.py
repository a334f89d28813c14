"""The frame of every job: run it, print one JSON line at the end, map errors to exit statuses."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from feature_store.ingestion import RowsRefusedError
from feature_store.sources.base import SourceError
from jobs.support.failures import sentence
from jobs.support.fencing import end_with_parent
from jobs.support.metrics_file import Ended, write_metrics
from jobs.support.settings import SettingsError

__all__ = ["RefusedError", "Summary", "main_of", "progress", "skipped"]

DONE, FAILED, BAD_ARGUMENTS, REFUSED = 0, 1, 2, 3


class RefusedError(RuntimeError):
    """A gate, or a stage before, does not let this run go on (exit status 3).

    ``summary`` is what is known all the same; it is printed with the refusal's message.
    """

    def __init__(self, message: str, summary: Summary | None = None) -> None:
        super().__init__(message)
        self.summary = summary


@dataclass
class Summary:
    """What a job did; its fields are the keys of the last line printed."""

    job: str
    hours: Sequence[str] = ()
    status: str = "done"
    rows_in: int = 0
    rows_out: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    snapshots: Mapping[str, int | None] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None
    mlflow_run_url: str | None = None
    report_url: str | None = None
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """One JSON object; ``hours`` shrinks to the first and the last."""
        values = _finite(asdict(self))
        values["hours"] = [self.hours[0], self.hours[-1]] if self.hours else []
        return json.dumps(values, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """``value`` with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def progress(job: str, message: str) -> None:
    """A line in the task's log."""
    print(f"[{job}] {message}", flush=True)


def skipped(summary: Summary, message: str) -> Summary:
    """``summary`` of a job that has nothing to do yet."""
    summary.status, summary.message = "skipped", message
    progress(summary.job, f"skipped: {message}")
    return summary


def main_of(
    job: str,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], Summary],
    argv: Sequence[str] | None,
) -> int:
    """Parse, run, leave the metrics, print the summary; returns the exit status.

    0 done, 1 failed, 2 bad arguments or configuration, 3 refused by a gate or by bad input.
    """
    started, began = time.monotonic(), time.time()
    arguments = parser.parse_args(argv)
    if argv is None:  # a process of its own, not a call from a test or another job
        end_with_parent()
    summary, code = _outcome(job, run, arguments)
    summary.seconds = round(time.monotonic() - started, 2)
    _leave_metrics(Ended(summary, arguments, code, began, time.time()))
    print(summary.line(), flush=True)
    return code


def _outcome(
    job: str, run: Callable[[argparse.Namespace], Summary], arguments: argparse.Namespace
) -> tuple[Summary, int]:
    """What ``run`` came to, and its exit status."""
    try:
        return run(arguments), DONE
    except SettingsError as error:
        return _ended(job, "bad arguments", error), BAD_ARGUMENTS
    except (RefusedError, RowsRefusedError, SourceError) as error:
        return _ended(job, "refused", error), REFUSED
    except Exception as error:
        said = sentence(error, arguments)
        if said is None:
            traceback.print_exc()
        return _ended(job, "failed", error, said), FAILED


def _ended(job: str, status: str, error: Exception, said: str | None = None) -> Summary:
    message = said or f"{error}" or type(error).__name__
    print(f"[{job}] {status}: {message}", file=sys.stderr, flush=True)
    known = error.summary if isinstance(error, RefusedError) else None
    summary = known or Summary(job)
    summary.status, summary.message = status, message
    return summary


def _leave_metrics(ended: Ended) -> None:
    try:
        write_metrics(ended)
    except Exception as error:  # what the job did is done, whether or not anybody can watch it
        said = f"[{ended.summary.job}] metrics not written: {type(error).__name__}: {error}"
        print(said, file=sys.stderr, flush=True)
