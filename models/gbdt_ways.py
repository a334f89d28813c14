"""Ways to come by a booster: grow one, go on from the champion's, or refit the champion's leaves.

Whatever the way, losses are of the rows at hand; nothing that was measured of a champion is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from models.base import Progress, TrainingRefused
from models.boosting import Labels, Watch, with_labels
from models.down_sampling import corrected_loss, loss_of_all
from models.gbdt_config import BINARY_METRIC, NDCG, GBDTConfig
from models.graded import mean_ndcg, ndcg_of

__all__ = ["Grown", "Rows", "continued", "grown", "refitted", "tree_count"]


@dataclass(frozen=True)
class Rows:
    """Rows of one task: the features (n, F) in the order of ``labels``, and what is learned."""

    matrix: pa.Table
    labels: Labels

    @classmethod
    def of(cls, matrix: pa.Table, labels: Labels) -> Rows:
        """The mature rows of ``matrix``."""
        if labels.rows is None:
            return cls(matrix, labels)
        return cls(matrix.take(pa.array(labels.rows)), replace(labels, rows=None))


@dataclass(frozen=True)
class Grown:
    """A booster as LightGBM writes it, the loss or NDCG@10 by round of this fit, and the rounds
    that were kept of it."""

    text: str
    curves: Mapping[str, tuple[float, ...]]
    rounds: int


def tree_count(text: str) -> int:
    """How many trees a booster's text holds."""
    return int(lgb.Booster(model_str=text).num_trees())


def grown(
    config: GBDTConfig, task: str, fitted: lgb.Dataset, stopping: lgb.Dataset, progress: Progress
) -> Grown:
    """A booster of at most ``config.rounds`` trees, cut at the best round on ``stopping``.

    Raises:
        TrainingRefused: for a loss that is not finite.
    """
    return _boosted(config, task, fitted, stopping, config.rounds, None, progress)


def continued(
    config: GBDTConfig, task: str, champion: str, fitted: Rows, stopping: Rows,
    categorical: Sequence[str], progress: Progress,
) -> Grown:  # fmt: skip
    """The champion's trees as they are, and after them 1 to ``config.continue_rounds`` new ones.

    The new trees have bins of their own: the champion's splits keep their values.

    Raises:
        TrainingRefused: for a loss that is not finite.
    """
    # The champion scores the rows as they are read, before they are binned.
    data = _kept(config, fitted, categorical, None)
    held = _kept(config, stopping, categorical, data)
    start = lgb.Booster(model_str=champion)
    return _boosted(config, task, data, held, config.continue_rounds, start, progress)


def refitted(
    config: GBDTConfig, task: str, champion: str, fitted: Rows, stopping: Rows, progress: Progress
) -> Grown:
    """The champion's trees with other leaf values: of what they were ``config.refit_decay``, and
    for the rest what ``fitted`` says, tree after tree.

    It holds the leaf of every row in every tree: (n, trees) numbers of 8 bytes at once.

    Raises:
        TrainingRefused: for a loss that is not finite.
    """
    labels, start = fitted.labels, lgb.Booster(model_str=champion)
    booster = start.refit(
        fitted.matrix,
        labels.values,
        decay_rate=config.refit_decay,
        weight=labels.weights,
        group=labels.groups,
        dataset_params=config.params(),
        num_threads=config.threads,
    )
    wanted = {"train": fitted, "valid": stopping} if config.train_curve else {"valid": stopping}
    curves = {
        name: (_measured(config, booster, rows, rows is fitted),) for name, rows in wanted.items()
    }
    loss = curves["valid"][0]
    if not np.isfinite(loss):
        raise TrainingRefused(
            f"task {task!r}: the valid loss of the refitted trees is {loss}; look for infinite "
            "values in the dense columns, or retrain"
        )
    progress(f"{task}: {booster.num_trees()} trees refitted, {_words(config)} {loss:.6f}")
    return Grown(booster.model_to_string(), curves, 0)


def _kept(
    config: GBDTConfig, rows: Rows, categorical: Sequence[str], reference: lgb.Dataset | None
) -> lgb.Dataset:
    data = lgb.Dataset(
        rows.matrix,
        label=rows.labels.values,
        reference=reference,
        categorical_feature=list(categorical),
        params=config.params(),
        free_raw_data=False,
    )
    return with_labels(data.construct(), rows.labels)


def _boosted(
    config: GBDTConfig, task: str, fitted: lgb.Dataset, stopping: lgb.Dataset, rounds: int,
    start: lgb.Booster | None, progress: Progress,
) -> Grown:  # fmt: skip
    """Train one booster; its text cut at the best round, and its curves."""
    metric, words = NDCG if config.ranks else BINARY_METRIC, _words(config)
    recorded: dict[str, dict[str, list[float]]] = {}
    sets, names = [stopping], ["valid"]
    if config.train_curve:
        sets, names = [fitted, stopping], ["train", "valid"]
    booster = lgb.train(
        config.params(),
        fitted,
        num_boost_round=rounds,
        valid_sets=sets,
        valid_names=names,
        init_model=start,
        feval=_measure(config, fitted),
        callbacks=[
            lgb.record_evaluation(recorded),
            Watch(task, rounds, progress, words),
            lgb.early_stopping(config.early_stopping_rounds, verbose=False),
        ],
    )
    curves = {name: tuple(recorded[name][metric]) for name in names}
    best = booster.best_iteration - (start.num_trees() if start is not None else 0)
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    progress(f"{task}: {best} rounds, {words} {curves['valid'][best - 1]:.6f}")
    return Grown(text, curves, best)


def _words(config: GBDTConfig) -> str:
    return "NDCG@10" if config.ranks else "log loss"


def _measure(config: GBDTConfig, fitted: lgb.Dataset) -> Any:
    """What stops a booster, where LightGBM does not know it by itself."""
    if config.ranks:
        return ndcg_of(config.gains)
    return corrected_loss(config.negative_share, fitted) if config.samples else None


def _measured(config: GBDTConfig, booster: lgb.Booster, rows: Rows, sampled: bool) -> float:
    """What stops a booster, of one that is not stopped; ``sampled`` rows lack negatives."""
    labels = rows.labels
    found: Any = booster.predict(rows.matrix, num_threads=config.threads)
    if labels.groups is not None:
        return mean_ndcg(labels.values, found, labels.groups, config.gains)
    share = config.negative_share
    return loss_of_all(labels.values, found, share, labels.weights, sampled)
