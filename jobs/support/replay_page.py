"""What a replay found: a line a cadence and label, figures, a page and a file of the hours."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from feature_store import hours as hr
from jobs.support.cadences import BASELINE, CADENCES
from jobs.support.contenders import Scores
from jobs.support.page import figures, page, section, table
from jobs.support.replaying import JudgedHour, Track
from models.metrics import Interval, paired_bootstrap, pooled_report
from models.plots import figure_svg, intervals_figure, timelines_figure

__all__ = ["CadenceLine", "hours_csv", "lines_of", "replay_figures", "replay_lines", "replay_page"]

_NAMES: Final = (
    "label", "cadence", "NDCG@10", "95 %", f"minus {BASELINE}'s", "hours better", "AUC",
    f"AUC minus {BASELINE}'s", "log loss", f"log loss minus {BASELINE}'s", "normalised entropy",
    "groups", "fits", "kept", "fit seconds",
)  # fmt: skip


@dataclass(frozen=True)
class CadenceLine:
    """A cadence on one label over all hours.

    Attributes:
        ndcg: mean NDCG@10 of the groups.
        difference: in NDCG@10 to the baseline, paired by group; the baseline's own is zero.
        hours: that have any such group; in ``better`` of them the mean is above the baseline's.
        auc: mean of the hours' own, weighed by their rows.
        auc_difference, log_loss_difference: to the baseline, mean over the hours, with an interval
            over hours.
        log_loss: mean over rows; ``normalised_entropy`` is it over the entropy of the hours' own
            rates: 1 is what knowing the rate of every hour gives. NaN where scores are no
            probabilities.
        seconds: of all fits.
    """

    label: str
    cadence: str
    ndcg: Interval
    difference: Interval
    hours: int
    better: int
    auc: float
    auc_difference: Interval
    log_loss: float
    log_loss_difference: Interval
    normalised_entropy: float
    groups: int
    fits: int
    kept: int
    anew: int
    seconds: float

    def words(self) -> str:
        """The difference to the baseline."""
        mean, low, high = self.difference
        return f"{self.cadence} {mean:+.4f} [{low:+.4f}, {high:+.4f}]"

    def figures(self) -> dict[str, Any]:
        """The numbers by name, for a summary."""
        return {
            "ndcg_at_10": self.ndcg.mean,
            "ndcg_at_10_interval": [self.ndcg.low, self.ndcg.high],
            f"minus_{BASELINE}": self.difference.mean,
            f"minus_{BASELINE}_interval": [self.difference.low, self.difference.high],
            "hours_better": self.better,
            "hours": self.hours,
            "auc": self.auc,
            f"auc_minus_{BASELINE}": self.auc_difference.mean,
            f"auc_minus_{BASELINE}_interval": list(self.auc_difference[1:]),
            "log_loss": self.log_loss,
            f"log_loss_minus_{BASELINE}": self.log_loss_difference.mean,
            f"log_loss_minus_{BASELINE}_interval": list(self.log_loss_difference[1:]),
            "normalised_entropy": self.normalised_entropy,
            "groups": self.groups,
            "fits": self.fits,
            "kept": self.kept,
            "anew": self.anew,
            "fit_seconds": round(self.seconds, 2),
        }


def lines_of(
    tracks: Sequence[Track], labels: Sequence[str], resamples: int, seed: int
) -> list[CadenceLine]:
    """A line a cadence and label; tracks were judged on the same groups of the same hours."""
    return [
        _line(track, _baseline(tracks), label, resamples, seed)
        for label in labels
        for track in tracks
    ]


def _baseline(tracks: Sequence[Track]) -> Track:
    return next(track for track in tracks if track.cadence.name == BASELINE)


def _line(track: Track, base: Track, label: str, resamples: int, seed: int) -> CadenceLine:
    mine = track.judged[label]
    apart = _differences(track, base, label)
    means = [float(one.mean()) for one in apart if len(one)]
    ndcg = np.concatenate([one.ndcg for one in mine])
    whole = pooled_report([one.metrics for one in mine])
    auc, loss, entropy = (
        whole.get(name, np.nan) for name in ("auc", "log_loss", "normalised_entropy")
    )

    def by_hour(metric: str) -> Interval:
        both = zip(mine, base.judged[label], strict=True)
        values = [a.metrics.get(metric, np.nan) - b.metrics.get(metric, np.nan) for a, b in both]
        return paired_bootstrap(values, seed, resamples)

    return CadenceLine(
        label, track.cadence.name,
        paired_bootstrap(ndcg, seed, resamples),
        paired_bootstrap(np.concatenate(apart), seed, resamples),
        len(means), sum(mean > 0 for mean in means),
        auc, by_hour("auc"), loss, by_hour("log_loss"), entropy,
        len(ndcg), track.fits, track.kept, track.anew, track.seconds,
    )  # fmt: skip


def _differences(track: Track, base: Track, label: str) -> list[Scores]:
    """In NDCG@10 to ``base`` by hour, a number a group."""
    both = zip(track.judged[label], base.judged[label], strict=True)
    return [mine.ndcg - theirs.ndcg for mine, theirs in both]


def _cells(line: CadenceLine) -> tuple[str, ...]:
    def number(value: float) -> str:
        return f"{value:.4f}" if np.isfinite(value) else "-"

    def apart(found: Interval) -> str:
        mean, low, high = found
        return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" if np.isfinite(mean) else "-"

    ours = ("", "", "", "")
    if line.cadence != BASELINE:
        ours = (apart(line.difference), f"{line.better} of {line.hours}",
                apart(line.auc_difference), apart(line.log_loss_difference))  # fmt: skip
    return (
        line.label, line.cadence, number(line.ndcg.mean),
        f"[{number(line.ndcg.low)}, {number(line.ndcg.high)}]", *ours[:2],
        number(line.auc), ours[2], number(line.log_loss), ours[3],
        number(line.normalised_entropy), f"{line.groups:,}", str(line.fits), str(line.kept),
        f"{line.seconds:.1f}",
    )  # fmt: skip


def replay_lines(lines: Sequence[CadenceLine]) -> list[str]:
    """A line a cadence and label for the screen, under a line of names."""
    rows = [_NAMES, *map(_cells, lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_NAMES))]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def replay_figures(
    tracks: Sequence[Track], label: str, time_zone: str, resamples: int, seed: int
) -> dict[str, Any]:
    """By name: NDCG@10 by hour, the difference to the baseline so far, and by hour of the day."""
    base = _baseline(tracks)
    others = [track for track in tracks if track is not base]
    hours = [one.hour for one in base.judged[label]]
    times = np.array([np.datetime64(f"{hour}:00", "s") for hour in hours])
    curves = {
        track.cadence.name: [_mean(one.ndcg) for one in track.judged[label]] for track in tracks
    }
    drawn = {
        "ndcg_by_hour": timelines_figure(f"{label}: NDCG@10 by hour", "NDCG@10", times, curves)
    }
    if not others:
        return drawn
    apart = {track.cadence.name: _differences(track, base, label) for track in others}
    drawn["difference_so_far"] = timelines_figure(
        f"{label}: NDCG@10 minus {BASELINE}'s, so far", "mean over the groups up to the hour",
        times, {name: _so_far(found) for name, found in apart.items()}, zero=True,
    )  # fmt: skip
    age = [hr.difference(hour, hr.date_hours(f"{hr.day_of(hour, time_zone)}", time_zone)[0])
           for hour in hours]  # fmt: skip
    places = sorted(set(age))

    def of(found: Sequence[Scores], place: int) -> Interval:
        mine = [one for one, there in zip(found, age, strict=True) if there == place]
        return paired_bootstrap(np.concatenate(mine), seed, resamples)

    drawn["difference_by_hour_of_day"] = intervals_figure(
        f"{label}: NDCG@10 minus {BASELINE}'s, by hour of the day, 95 %",
        (f"hours since the start of the business day ({time_zone})", "difference"),
        places, {name: [of(found, place) for place in places] for name, found in apart.items()},
    )  # fmt: skip
    return drawn


def _mean(values: Scores) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _so_far(differences: Sequence[Scores]) -> list[float]:
    """The mean over all groups up to every hour; NaN before the first."""
    total = np.cumsum([one.sum() for one in differences])
    count = np.cumsum([len(one) for one in differences])
    return [float(t / c) if c else float("nan") for t, c in zip(total, count, strict=True)]


def replay_page(
    title: str, words: str, lines: Sequence[CadenceLine], drawn: Mapping[str, Any]
) -> str:
    """One self-contained HTML page: the table, figures, and what the cadences are."""
    used = list(dict.fromkeys(line.cadence for line in lines))
    meant = table(("cadence", "its models"), [(name, CADENCES[name].about) for name in used])
    numbers = _NAMES[2:]
    shown = [figure_svg(figure) for figure in drawn.values()]
    return page(title, words, table(_NAMES, map(_cells, lines), numbers), figures(shown),
                section("Cadences", meant))  # fmt: skip


def hours_csv(tracks: Sequence[Track]) -> str:
    """A row an hour, label and cadence, for whoever draws other figures."""
    stream = io.StringIO()
    written = csv.writer(stream, lineterminator="\n")
    metrics = ("ndcg_at_10", "auc", "gauc", "log_loss", "normalised_entropy", "rows", "groups")
    written.writerow(("hour", "label", "cadence", *metrics))
    for track in tracks:
        for label, hours in track.judged.items():
            written.writerows(_csv_rows(track.cadence.name, label, hours, metrics))
    return stream.getvalue()


def _csv_rows(
    cadence: str, label: str, hours: Sequence[JudgedHour], metrics: Sequence[str]
) -> Iterator[list[Any]]:
    for one in hours:
        yield [one.hour, label, cadence, *(one.metrics.get(metric, "") for metric in metrics)]
