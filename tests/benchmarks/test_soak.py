"""The verdicts of a soak, on weeks whose growth is known."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import soak
import soak_report as report

HOURS = 168
JOBS = ("ingest_events", "train_gbdt", "promote")


def week(seconds: Callable[[int], float], size: Callable[[int], float]) -> list[dict[str, Any]]:
    """Hours of which each job takes ``seconds``, and after which every size is ``size``."""
    lines = []
    for n in range(HOURS):
        clock = dict.fromkeys(JOBS, seconds(n)) | ({"maintain": 90.0} if n % 24 == 23 else {})
        lines.append({
            "hour": f"h{n}", "wall": clock, "cpu": {**clock, "postgres": 0.1, "mlflow": 0.2},
            "after_start": n == 90, "ended": float(n), "load": 1.0,
            "tables": {"events": [1, 1, 1, 1]},
            "mb": dict.fromkeys(report.SIZES, size(n)), "counts": {"hours": n},
            "memory_mb": {"postgres": 50.0},
        })  # fmt: skip
    return lines


def said(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["case"]: line["quality"]["verdict"] for line in report.verdicts(lines)}


@pytest.mark.parametrize(("last", "verdict"), [(1.0, "stays"), (1.19, "stays"), (1.3, "grows")])
def test_the_last_day_is_put_beside_the_first(last: float, verdict: str) -> None:
    found = week(lambda n: last if n >= HOURS - 24 else 1.0, lambda _n: 1.0)
    found[90]["wall"]["promote"] = 1000.0  # right after a start: does not count
    line = next(report.verdicts(found))
    assert (line["case"], line["quality"]["verdict"]) == ("all jobs, wall", verdict)
    assert line["ratio"] == pytest.approx(last, abs=0.01)
    assert line["theirs"] == 3.0, "maintenance is not an hour's"


@pytest.mark.parametrize(
    ("size", "verdict"),
    [
        (lambda _n: 5.0, "flat"),
        (lambda n: 5.0 + min(n, 72), "flat"),
        (lambda n: 5.0 + n, "grows evenly"),
        (lambda n: 5.0 + n + 8 * (n % 24), "grows evenly"),
        (lambda n: 5.0 + n * n, "grows faster"),
    ],
)
def test_sizes_are_flat_or_grow_evenly_or_faster(
    size: Callable[[int], float], verdict: str
) -> None:
    assert said(week(lambda _n: 1.0, size))["size, metadata"] == verdict


def test_lines_are_json_and_drawn() -> None:
    found = week(lambda _n: 1.0, lambda n: 5.0 + n)
    lines = report.lines(found)
    assert json.loads(json.dumps(lines)) == lines
    hours = [line for line in lines if line["case"].startswith("hour ")]
    assert [line["ours"] for line in hours] == [3.0] * HOURS
    assert sum("tables" in line["quality"] for line in hours) == HOURS // 24
    drawn = report.picture(found)
    assert [panel.get_ylabel() for panel in drawn.axes] == ["seconds an hour", "MB", "MB"]


def test_hours_are_gone_on_with_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "hours.jsonl"
    assert soak.read_lines(path) == []
    path.write_text('{"hour": "a"}\n{"hour": "b"}\n{"hou')
    assert soak.read_lines(path) == [{"hour": "a"}, {"hour": "b"}]
    assert path.read_text() == '{"hour": "a"}\n{"hour": "b"}\n'


def test_plots_are_drawn_once_and_anew_when_asked_for(tmp_path: Path) -> None:
    copied = soak.Copied()
    figures = [Figure(figsize=(1, 1)) for _ in range(3)]
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for n, anew in ((0, True), (1, False), (2, True)):
        figures[n].text(0.5, 0.5, str(n))
        copied.start("train_gbdt", anew)
        copied.savefig(figures[n], files[n], dpi=50)
    drawn = [path.read_bytes() for path in files]
    assert drawn[0] == drawn[1] != drawn[2]
    copied.start("validate_events", False)
    text = io.StringIO()
    copied.savefig(figures[0], text, format="svg")
    assert "<svg" in text.getvalue()
