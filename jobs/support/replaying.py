"""Replaying hours: every cadence fits when it is due, serves its newest model, and is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from feature_store import hours as hr
from feature_store.training_set import MovingSet
from jobs.support.cadences import Cadence
from jobs.support.contenders import Scores, unregistered
from jobs.support.judging import Judged, judge, scored
from jobs.support.plans import MIN_HOURS
from jobs.support.settings import EvaluationSettings
from jobs.support.training import split
from models import FeatureSpec, TrainingRefused
from models.gbdt import GBDTConfig, GBDTRanker

__all__ = ["JudgedHour", "Replay", "Track"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class JudgedHour:
    """What a cadence was worth in an hour on one label.

    Attributes:
        metrics: keys as of ``evaluate_ranking``.
        ndcg: NDCG@10 of the mature groups, in the order that all cadences have in common.
    """

    hour: str
    metrics: Mapping[str, float]
    ndcg: Scores


@dataclass
class Track:
    """A cadence on its way through the hours.

    Attributes:
        moment: hour at whose start ``model`` was fitted; ``tried`` that of the newest fit that was
            due, whether it came about or not.
        seconds: of all fits; one that two cadences share counts for both.
        kept: fits that did not come about, so that the model before served on.
        anew: fits that should have gone on from the last model, and could not.
        judged: by label, the hours in order.
    """

    cadence: Cadence
    model: GBDTRanker | None = None
    moment: str | None = None
    tried: str | None = None
    fits: int = 0
    seconds: float = 0.0
    kept: int = 0
    anew: int = 0
    judged: dict[str, list[JudgedHour]] = field(default_factory=dict)


class _Moment:
    """Fits at one moment, on rows that are built at most once."""

    def __init__(self, replay: Replay, moment: str) -> None:
        self._replay, self._moment = replay, moment
        self._rows: tuple[pa.Table, pa.Table] | None = None
        self._anew: tuple[GBDTRanker, float] | None = None

    def anew(self) -> tuple[GBDTRanker, float]:
        """A model from nothing and the seconds of its fit."""
        if self._anew is None:
            self._anew = self._fitted("retrain", None)
        return self._anew

    def gone_on(self, way: str, last: GBDTRanker) -> tuple[GBDTRanker, float] | None:
        """``last`` gone on from; None when that cannot be done."""
        model = self._replay.unfitted(way)
        return None if model.warm_refusal(last) else self._fitted(way, last)

    def _fitted(self, way: str, last: GBDTRanker | None) -> tuple[GBDTRanker, float]:
        if self._rows is None:
            self._rows = split(self._replay.training_rows(self._moment))
        model = self._replay.unfitted(way)
        report = model.fit(*self._rows, champion=last)
        return model, report.seconds


class Replay:
    """Hours served again by models of several cadences.

    Args:
        rows: training sets of all hours that are read.
        configs: by way.
        span: hours that a model is fitted on.
        labels: that are judged.
        say: prints a line.
    """

    def __init__(
        self, rows: MovingSet, spec: FeatureSpec, configs: Mapping[str, GBDTConfig], span: int,
        time_zone: str, labels: Sequence[str], evaluation: EvaluationSettings, say: Say,
    ) -> None:  # fmt: skip
        self._rows, self._spec, self._configs = rows, spec, configs
        self._span, self._zone, self._labels = span, time_zone, labels
        self._evaluation, self._say = evaluation, say
        self.rows = 0

    def unfitted(self, way: str) -> GBDTRanker:
        """A ranker that is to come about in ``way``."""
        return GBDTRanker(self._configs[way], self._spec)

    def training_rows(self, moment: str) -> pa.Table:
        """What a model may know at the start of ``moment``."""
        first, last = hr.add(moment, -self._span), hr.add(moment, -1)
        return self._rows.rows(first, last, moment)

    def complete(self, moment: str) -> int:
        """How many hours a model of ``moment`` is fitted on."""
        return len(self._rows.hours(hr.add(moment, -self._span), hr.add(moment, -1)))

    def serve(self, tracks: Sequence[Track], hour: str) -> None:
        """Fit what is due for ``hour``, and judge everyone on it at its cut, an hour later.

        Raises:
            TrainingRefused: by the first fit of a cadence: there is nothing that could serve.
            RefusedError: for a model that has seen ``hour``.
        """
        self._fit_due(tracks, hour)
        self._judge(tracks, hour)
        self._rows.drop_before(hr.add(hour, 1 - self._span))

    def _fit_due(self, tracks: Sequence[Track], hour: str) -> None:
        due = [
            (moment, track)
            for track in tracks
            for moment in track.cadence.moments(hour, self._zone, track.tried)
        ]
        fits = {moment: _Moment(self, moment) for moment, _ in due}
        for moment, track in sorted(due, key=lambda one: one[0]):
            self._rows.drop_before(hr.add(moment, -self._span))
            self._fit(track, moment, fits[moment])

    def _fit(self, track: Track, moment: str, fits: _Moment) -> None:
        track.tried = moment
        if self.complete(moment) < MIN_HOURS and track.model is not None:
            self._keep(track, moment, f"{self.complete(moment)} complete hours before it")
            return
        try:
            found = None
            if track.model is not None and track.cadence.goes_on(moment, self._zone):
                found = fits.gone_on(track.cadence.way, track.model)
                track.anew += found is None
            track.model, seconds = found or fits.anew()
        except TrainingRefused as error:
            if track.model is None:
                raise
            self._keep(track, moment, f"{error}")
            return
        track.moment = moment
        track.fits += 1
        track.seconds += seconds

    def _keep(self, track: Track, moment: str, why: str) -> None:
        """As a failed retraining does, leave the model before in place."""
        track.kept += 1
        self._say(f"{track.cadence.name} keeps the model of {track.moment} at {moment}: {why}")

    def _judge(self, tracks: Sequence[Track], hour: str) -> None:
        table = self._rows.rows(hour, hour, hr.add(hour, 1), self._labels)
        contenders = [
            unregistered(track.cadence.name, track.model, hr.add(track.moment, -1), hour)
            for track in tracks
            if track.model is not None and track.moment is not None
        ]
        rows = scored(table.to_batches(), contenders, self._labels)
        self.rows += rows.rows
        resamples, seed = self._evaluation.resamples, self._evaluation.seed
        for label in self._labels:
            found = [judge(one, rows, label, resamples, seed) for one in contenders]
            _check_paired(found, hour)
            for track, judged in zip(tracks, found, strict=True):
                kept = JudgedHour(hour, judged.metrics, judged.ndcg)
                track.judged.setdefault(label, []).append(kept)


def _check_paired(judged: Sequence[Judged], hour: str) -> None:
    """Raise ValueError unless all were judged on the same groups."""
    for one in judged[1:]:
        if not np.array_equal(one.groups, judged[0].groups):
            raise ValueError(
                f"{one.role} was judged on {len(one.groups)} groups of {hour}, {judged[0].role} on "
                f"{len(judged[0].groups)}, and not on the same ones; they cannot be paired"
            )
