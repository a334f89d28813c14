"""What trees learn of the rows: by task the mature labels, drawn and weighed, or graded groups."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from models.base import FeatureSpec, TooFewPositives, TrainingRefused
from models.boosting import Labels, mature_labels, weighted
from models.down_sampling import Bools, drawn, without_negatives
from models.gbdt_config import RELEVANCE, GBDTConfig
from models.graded import graded_targets

__all__ = ["Targets", "targets_of"]

Targets = Mapping[str, tuple[Labels, Labels]]
"""By output what is learned of the rows that are fitted, and of those that stop early."""


def targets_of(
    config: GBDTConfig, spec: FeatureSpec, train: pa.Table, valid: pa.Table
) -> tuple[Targets, dict[str, float]]:
    """By output what is learned of both tables; and numbers for the report.

    Raises:
        SpecError: for a label column, or another one that is read, which is not there.
        TrainingRefused: for too few positives, one class only, labels that are not 0 or 1, or a
            sample weight that is not finite; the sentence names the task.
    """
    if not config.ranks:
        kept = drawn(train, config.negative_share) if config.samples else None
        return {task: _labels(config, train, valid, task, kept) for task in config.tasks}, {}
    position = spec.training_only[0] if config.debias == "position" else None
    fitted, stopping = graded_targets(train, valid, config, position)
    numbers = {
        "groups": float(fitted.groups),
        "groups_immature": float(fitted.immature),
        "groups_of_one_grade": float(fitted.alike),
    }
    return {RELEVANCE: (fitted.labels, stopping.labels)}, numbers


def _labels(
    config: GBDTConfig, train: pa.Table, valid: pa.Table, task: str, kept: Bools | None
) -> tuple[Labels, Labels]:
    """What ``task`` learns of both tables; ``kept`` are the training rows that may be negative,
    None for all."""
    fitted = mature_labels(train, task, "training")
    stopping = mature_labels(valid, task, "early-stopping")
    if len(fitted.values) and fitted.positives == len(fitted.values):
        raise TrainingRefused(
            f"task {task!r} has one class only: all of its {len(fitted.values):,} mature "
            "training rows are positive; check the label's action and its window"
        )
    if fitted.positives < config.min_positives:
        raise TooFewPositives(
            f"task {task!r} has too few positives: {fitted.positives:,} of "
            f"{len(fitted.values):,} mature training rows ({fitted.immature:,} immature), "
            f"and {config.min_positives:,} are wanted; train on a longer span, lower "
            "min_positives or drop the task"
        )
    if stopping.positives in (0, len(stopping.values)):
        raise TrainingRefused(
            f"task {task!r} has one class only among the early-stopping rows: "
            f"{stopping.positives:,} positives of {len(stopping.values):,} mature rows "
            f"({stopping.immature:,} immature); train on a longer span or drop the task"
        )
    if kept is not None:
        fitted = without_negatives(fitted, kept, task)
    added = config.sample_weights.get(task, {})
    return (
        weighted(fitted, train, task, added, "training"),
        weighted(stopping, valid, task, added, "early-stopping"),
    )
