"""What the script of a report's page draws, as JSON that may stand inside of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from jobs.support.report import Report

__all__ = ["EVIDENT", "embedded", "labels_of", "plotted"]

# An adjusted p-value below this is drawn as a filled point.
EVIDENT: Final = 0.05


def labels_of(report: Report) -> list[str]:
    """The labels in order; those that only lines know come last."""
    lines: Sequence[Any] = (*report.board, *report.hourly, *report.segments, *report.calibration)
    return list(dict.fromkeys((*report.labels, *(line.label for line in lines))))


def plotted(report: Report) -> dict[str, Any]:
    """What the script draws, by the names that it reads."""
    lines: Sequence[Any] = (*report.board, *report.history, *report.hourly, *report.segments,
             *report.calibration, *report.exposure)  # fmt: skip
    board = [
        {"role": line.role, "label": line.label, "ndcg": line.metrics.get("ndcg_at_10"),
         "low": line.low, "high": line.high}
        for line in report.board
    ]  # fmt: skip
    segments = [_flat(asdict(line)) for line in report.segments]
    return {
        "roles": list(dict.fromkeys((*report.roles, *(line.role for line in lines)))),
        "labels": labels_of(report),
        "reference": report.reference,
        "evident": EVIDENT,
        "board": _packed(board),
        "history": _packed([asdict(line) for line in report.history]),
        "hourly": _packed([asdict(line) for line in report.hourly]),
        "segments": _packed(segments),
        "calibration": _packed([asdict(line) for line in report.calibration]),
    }


def _flat(segment: dict[str, Any]) -> dict[str, Any]:
    """A segment with the numbers of its difference beside its own."""
    difference = segment.pop("difference") or {}
    names = {"value": "gain", "low": "gain_low", "high": "gain_high", "p_value": "p_value"}
    return {**segment, **{name: difference.get(key) for key, name in names.items()}}


def _packed(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lines that name their fields once."""
    fields = list(lines[0]) if lines else []
    return {"fields": fields, "rows": [[_plain(line[name]) for name in fields] for line in lines]}


def _plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, and no digits that no plot shows."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the element in which it stands."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
