"""The page of an evaluation: one self-contained file with plots, tables and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.support.report import (
    Board,
    CalibrationLine,
    CheckLine,
    Difference,
    ExposureLine,
    Report,
    number,
)
from jobs.support.report_plots import EVIDENT, embedded, labels_of, plotted

__all__ = ["report_page"]

_ASSETS: Final = Path(__file__).parent / "assets"
_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
# The metrics of the leaderboard after NDCG@10: what they are called, and whether less is better.
_METRICS: Final = (
    ("ndcg_at_1", "NDCG@1", False), ("ndcg_at_5", "NDCG@5", False),
    ("map_at_10", "MAP@10", False), ("mrr_at_10", "MRR@10", False),
    ("recall_at_10", "recall@10", False), ("auc", "AUC", False), ("gauc", "GAUC", False),
    ("log_loss", "log loss", True), ("normalised_entropy", "normalised entropy", True),
    ("expected_calibration_error", "calibration error", True), ("groups", "groups", False),
)  # fmt: skip
# The numbers of an exposure line: what they are called, the field, and what they say.
_EXPOSURE: Final = (
    ("Gini", "gini", "how uneven the exposure is: 0 where all get alike, 1 where one gets it all."),
    ("tail share", "tail_share", "the part of all exposure that the tail gets."),
    ("tail share as served", "tail_share_logged", "the same in the order that was served."),
    ("coverage", "coverage", "the part of all there are that are ever among the first."),
    ("popularity lift", "popularity_lift",
     "popularity of what is shown over that of what could be; above 1 the popular are favoured."),
)  # fmt: skip
_LEVELS: Final = ("fail", "skip", "pass")


@dataclass(frozen=True)
class _Column:
    """A column's head, and the direction of the first click on it."""

    name: str
    first: str = "descending"


@dataclass(frozen=True)
class _Cell:
    """A cell: what is shown, a smaller text below, and what rows are sorted by."""

    text: str
    value: str
    small: str = ""
    number: bool = True


@dataclass(frozen=True)
class _Row:
    role: str
    small: str
    cells: list[_Cell]


@dataclass(frozen=True)
class _Headline:
    text: str
    level: str = ""


def report_page(report: Report) -> str:
    """One HTML page of an evaluation that asks nothing of any network.

    A section is left out where ``report`` has nothing for it, a number that is not known is ``-``,
    and nothing that ``report`` says is taken for markup.

    Raises:
        ValueError: if ``report`` names no role, or a check's level is none of the three.
    """
    if not report.roles:
        raise ValueError("the report names no role; the first is the one that is judged")
    odd = sorted({check.level for check in report.checks} - set(_LEVELS))
    if odd:
        raise ValueError(f"a check's level is one of {', '.join(_LEVELS)}, not {', '.join(odd)}")
    return _TEMPLATES.get_template("report.html.jinja").render(
        report=report,
        policy=_POLICY,
        evident=EVIDENT,
        labels=labels_of(report),
        summary=_summary(report),
        headline=_headline(report),
        board_columns=_board_columns(report.roles[0]),
        boards=_by_label(report, report.board, _board_rows),
        calibration_columns=_columns("model", "rows", "predicted", "observed", "ratio"),
        calibration=_by_label(report, report.calibration, _calibration_rows),
        exposure_columns=_columns("model", "of", *(name for name, _, _ in _EXPOSURE)),
        exposure_words=[(name, words) for name, _, words in _EXPOSURE],
        exposure=[_exposure_row(line) for line in report.exposure],
        checks=sorted(report.checks, key=lambda check: _LEVELS.index(check.level)),
        checks_words=_checks_words(report.checks),
        data=embedded(plotted(report)),
        style=_asset("report.css"),
        script=_asset("report.js"),
        chart=_asset("chart.umd.min.js"),
        licence=_asset("LICENSE.chartjs.md"),
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8").strip()


def _summary(report: Report) -> str:
    hours, when = report.hours, "no hour"
    if hours:
        span = hours[0] if len(hours) == 1 else f"{hours[0]} to {hours[-1]}"
        days = "in UTC"
        if report.time_zone != "UTC":
            days += f"; days are those of {report.time_zone}"
        when = f"{_count(len(hours), 'hour')} ({span}, {days})"
    return (
        f"The {report.evaluation} evaluation judges {_listed(report.roles)} "
        f"on {_count(report.rows, 'row')} of {when}, "
        f"by {_count(len(report.labels), 'label')}: {_listed(report.labels)}. "
        f"Only what was known before {report.cut} counts."
    )


def _headline(report: Report) -> _Headline:
    """The judged role against the reference, on the first label."""
    judged, label = report.roles[0], report.labels[0] if report.labels else ""
    found = [
        line.difference for line in report.board
        if (line.role, line.label) == (report.reference, label) and line.difference is not None
    ]  # fmt: skip
    if not found or number(found[0].value) is None:
        return _Headline(f"{judged} was not compared with {report.reference or 'any other'}.")
    return _compared(judged, report.reference, label, found[0])


def _compared(judged: str, other: str, label: str, difference: Difference) -> _Headline:
    value, low, high = (number(n) for n in (difference.value, difference.low, difference.high))
    numbers = f"NDCG@10 {_signed(value)}, 95 % interval {_interval(low, high, signed=True)}"
    if difference.p_value is not None:
        numbers += f", adjusted p-value {_p_value(difference.p_value)}"
    if low is not None and low > 0:
        return _Headline(f"{judged} is ahead of {other} on {label}: {numbers}.", "ahead")
    if high is not None and high < 0:
        return _Headline(f"{judged} is behind {other} on {label}: {numbers}.", "behind")
    text = f"{judged} and {other} cannot be told apart on {label}: {numbers}."
    if number(difference.detectable) is not None:
        text += f" A true difference of {_fixed(difference.detectable)} would mostly have shown."
    return _Headline(text)


def _by_label(
    report: Report, lines: Sequence[Any], rows_of: Callable[[Any], list[_Row]]
) -> list[tuple[str, list[_Row]]]:
    """Rows of a table for each label that has some."""
    found = []
    for label in labels_of(report):
        own = [line for line in lines if line.label == label]
        if own:
            found.append((label, rows_of(own)))
    return found


def _board_columns(judged: str) -> list[_Column]:
    less = {name for _, name, rising in _METRICS if rising}
    names = (
        "model", "NDCG@10", f"{judged} minus this", "adjusted p", "detectable",
        *(name for _, name, _ in _METRICS), "immature rows",
    )  # fmt: skip
    first = {"model", "adjusted p", *less}
    return [_Column(name, "ascending" if name in first else "descending") for name in names]


def _board_rows(lines: Iterable[Board]) -> list[_Row]:
    best_first = sorted(lines, key=lambda line: -_ndcg(line))
    return [_Row(line.role, _versions(line), _board_cells(line)) for line in best_first]


def _ndcg(line: Board) -> float:
    known = number(line.metrics.get("ndcg_at_10"))
    return -math.inf if known is None else known


def _versions(line: Board) -> str:
    if not line.versions:
        return "" if line.name == line.role else line.name
    if len(line.versions) == 1:
        return f"{line.name} {line.versions[0]}"
    return f"{line.name} {line.versions[0]} to {line.versions[-1]}"


def _board_cells(line: Board) -> list[_Cell]:
    ndcg, d = line.metrics.get("ndcg_at_10"), line.difference
    value, low, high, p, detectable = (
        (d.value, d.low, d.high, d.p_value, d.detectable) if d else (None,) * 5
    )
    return [
        _cell(ndcg, _fixed, _interval(line.low, line.high)),
        _cell(value, _signed, _interval(low, high, signed=True)),
        _cell(p, _p_value),
        _cell(detectable, _fixed),
        *(_cell(line.metrics.get(key), _whole if key == "groups" else _fixed)
          for key, _, _ in _METRICS),
        _cell(line.immature, _whole),
    ]  # fmt: skip


def _calibration_rows(lines: Sequence[CalibrationLine]) -> list[_Row]:
    """What each model tells on average, and what comes about."""
    rows = []
    for role in dict.fromkeys(line.role for line in lines):
        own = [line for line in lines if line.role == role]
        count = sum(line.rows for line in own)
        predicted = sum(line.rows * line.predicted for line in own) / count if count else None
        observed = sum(line.rows * line.observed for line in own) / count if count else None
        ratio = observed / predicted if predicted and observed is not None else None
        rows.append(_Row(role, "", [
            _cell(count, _whole), _cell(predicted, _fixed),
            _cell(observed, _fixed), _cell(ratio, _short),
        ]))  # fmt: skip
    return rows


def _exposure_row(line: ExposureLine) -> _Row:
    numbers = [_cell(getattr(line, field), _short) for _, field, _ in _EXPOSURE]
    return _Row(line.role, "", [_Cell(line.kind, line.kind, number=False), *numbers])


def _checks_words(checks: Sequence[CheckLine]) -> str:
    counts = [(sum(check.level == level for check in checks), level) for level in _LEVELS]
    words = {"fail": "failed", "skip": "skipped: the rows had nothing for them", "pass": "passed"}
    said = [f"{count} {words[level]}" for count, level in reversed(counts) if count]
    return f"Rows are changed, and the model has to follow. {'; '.join(said)}."


def _columns(*names: str) -> list[_Column]:
    text = {"model", "of"}
    return [_Column(name, "ascending" if name in text else "descending") for name in names]


def _cell(value: float | None, shown: Callable[[float | None], str], small: str = "") -> _Cell:
    known = number(value)
    kept = "" if known is None else repr(known)
    return _Cell(shown(known), kept, "" if small == "-" else small)


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    low, high = number(low), number(high)
    if low is None or high is None:
        return "-"
    shown = _signed if signed else _fixed
    return f"[{shown(low)}, {shown(high)}]"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names) or "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"
