"""Gradient-boosted trees: one LightGBM booster a task and a weighted sum to rank by, or one booster
that learns the order of a group.

Tables go from Arrow into LightGBM's bins without a copy in between but the codes of the sparse
columns; the bins are made once and serve every task.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.base import (
    CONFIG_FILE,
    SPEC_FILE,
    FeatureSpec,
    FitReport,
    ModelError,
    Progress,
    Ranker,
    SpecError,
    TooFewPositives,
    TrainingRefused,
    encode_sparse,
    read_json,
    silent,
    write_json,
)
from models.boosting import Labels, Watch, mature_labels, weighted, with_labels
from models.gbdt_config import BINARY_METRIC, NDCG, RELEVANCE, GBDTConfig
from models.graded import graded_targets, ndcg_of
from models.leaf_layout import LeafLayout

__all__ = ["GBDTConfig", "GBDTRanker"]

_BOOSTERS: Final = "boosters"


class GBDTRanker(Ranker):
    """Boosters on the dense columns and the codes of the sparse ones.

    With objective ``binary`` there is one a task, and the ranking score is the weighted sum of the
    tasks' probabilities. With a ranking objective there is one for the graded tasks together; its
    only output is ``relevance``, which is the ranking score and no probability of anything.
    """

    family: ClassVar[str] = "gbdt"
    packages: ClassVar[tuple[str, ...]] = ("lightgbm",)

    def __init__(self, config: GBDTConfig, spec: FeatureSpec) -> None:
        unread = [column.name for column in spec.sequences]
        unread += [column.name for column in spec.pretrained]
        if unread:
            raise SpecError(f"a GBDT reads dense and sparse columns only, not {', '.join(unread)}")
        if not spec.columns:
            raise SpecError("the FeatureSpec names no column; name at least one")
        if config.debias == "position" and len(spec.training_only) != 1:
            raise SpecError(
                f"debias is position, and the FeatureSpec names {len(spec.training_only)} "
                "training-only columns; name the position, and it alone"
            )
        self.config = config
        self.spec = spec
        self._texts: dict[str, str] = {}
        self._boosters: dict[str, lgb.Booster] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        return (RELEVANCE,) if self.config.ranks else self.config.tasks

    @property
    def probabilities(self) -> tuple[str, ...]:
        """The tasks' own rates: a score is none, nor is what was learned of weighted rows."""
        if self.config.ranks:
            return ()
        return tuple(task for task in self.tasks if task not in self.config.sample_weights)

    @property
    def tree_version(self) -> str:
        """SHA-256 over the boosters' texts in task order: leaf ids mean nothing beyond it."""
        digest = hashlib.sha256()
        for task in self.tasks:
            digest.update(f"{task}\n{self._text(task)}".encode())
        return digest.hexdigest()

    def config_dict(self) -> dict[str, Any]:
        return self.config.to_dict()

    def booster_text(self, task: str) -> str:
        """The booster of ``task`` as LightGBM writes it."""
        return self._text(task)

    def _text(self, task: str) -> str:
        if task not in self._texts:
            raise ModelError(f"the booster of task {task!r} is not there; call fit or load first")
        return self._texts[task]

    def fit(self, train: pa.Table, valid: pa.Table, progress: Progress = silent) -> FitReport:
        """Fit the boosters on ``train``, each stopped by its log loss, or NDCG@10, on ``valid``.

        A row whose label is null is masked for that task. Where the configuration weighs samples,
        the loss that stops it is of rows weighed alike. For a ranking objective see
        :func:`models.graded.graded_rows`.

        Raises:
            SpecError: when a table lacks a feature or label column.
            TrainingRefused: for too few positives, one class only, labels that are not 0 or 1, or
                a loss or sample weight that is not finite; the sentence names the task.
        """
        started = time.perf_counter()
        targets, numbers = self._targets(train, valid)
        orders = [labels.order for labels in next(iter(targets.values()))]
        data = self._binned(train, orders[0], None)
        held = self._binned(valid, orders[1], data)
        steps = {"bin": time.perf_counter() - started}
        progress(f"binned {data.num_data():,} rows x {len(self.spec.columns)} columns")
        curves: dict[str, dict[str, tuple[float, ...]]] = {}
        texts: dict[str, str] = {}
        for task, (fitted, stopping) in targets.items():
            began = time.perf_counter()
            texts[task], curves[task] = self._boost(
                task, with_labels(data, fitted), with_labels(held, stopping), progress
            )
            steps[f"boost_{task}"] = time.perf_counter() - began
        self._adopt(texts)
        return FitReport(
            rounds={task: self._boosters[task].num_trees() for task in self.tasks},
            curves=curves,
            importances={task: self._importance(task) for task in self.tasks},
            rows={task: len(fitted.values) for task, (fitted, _) in targets.items()},
            positives={task: fitted.positives for task, (fitted, _) in targets.items()},
            immature={task: fitted.immature for task, (fitted, _) in targets.items()},
            seconds=time.perf_counter() - started,
            seconds_by_step=steps,
            numbers=numbers,
            measure=self._measure[1],
        )

    @property
    def _measure(self) -> tuple[str, str]:
        """What stops a booster, as LightGBM calls it and as the report does."""
        return (NDCG, NDCG) if self.config.ranks else (BINARY_METRIC, "loss")

    def _targets(
        self, train: pa.Table, valid: pa.Table
    ) -> tuple[dict[str, tuple[Labels, Labels]], dict[str, float]]:
        """By output what is learned of both tables; and numbers for the report."""
        if not self.config.ranks:
            return {task: self._labels(train, valid, task) for task in self.tasks}, {}
        position = self.spec.training_only[0] if self.config.debias == "position" else None
        fitted, stopping = graded_targets(train, valid, self.config, position)
        numbers = {
            "groups": float(fitted.groups),
            "groups_immature": float(fitted.immature),
            "groups_of_one_grade": float(fitted.alike),
        }
        return {RELEVANCE: (fitted.labels, stopping.labels)}, numbers

    def _binned(
        self, table: pa.Table, order: npt.NDArray[np.int64] | None, reference: lgb.Dataset | None
    ) -> lgb.Dataset:
        """The table's rows in ``order``, in bins (those of ``reference``, if given); labels are set
        task by task."""
        matrix = self._matrix(table)
        if order is not None:
            matrix = matrix.take(pa.array(order))
        return lgb.Dataset(
            matrix,
            label=np.zeros(matrix.num_rows, dtype=np.float32),
            reference=reference,
            categorical_feature=[column.name for column in self.spec.sparse],
            params=self.config.params(),
        ).construct()

    def _matrix(self, table: pa.Table) -> pa.Table:
        """The feature columns in spec order: dense as they are, sparse as int32 codes."""
        self.spec.check(table)
        columns = {name: table.column(name) for name in self.spec.dense}
        for column in self.spec.sparse:
            columns[column.name] = pa.array(
                encode_sparse(table.column(column.name), column.buckets)
            )
        return pa.table(columns)

    def _labels(self, train: pa.Table, valid: pa.Table, task: str) -> tuple[Labels, Labels]:
        fitted = mature_labels(train, task, "training")
        stopping = mature_labels(valid, task, "early-stopping")
        if len(fitted.values) and fitted.positives == len(fitted.values):
            raise TrainingRefused(
                f"task {task!r} has one class only: all of its {len(fitted.values):,} mature "
                "training rows are positive; check the label's action and its window"
            )
        if fitted.positives < self.config.min_positives:
            raise TooFewPositives(
                f"task {task!r} has too few positives: {fitted.positives:,} of "
                f"{len(fitted.values):,} mature training rows ({fitted.immature:,} immature), "
                f"and {self.config.min_positives:,} are wanted; train on a longer span, lower "
                "min_positives or drop the task"
            )
        if stopping.positives in (0, len(stopping.values)):
            raise TrainingRefused(
                f"task {task!r} has one class only among the early-stopping rows: "
                f"{stopping.positives:,} positives of {len(stopping.values):,} mature rows "
                f"({stopping.immature:,} immature); train on a longer span or drop the task"
            )
        added = self.config.sample_weights.get(task, {})
        return (
            weighted(fitted, train, task, added, "training"),
            weighted(stopping, valid, task, added, "early-stopping"),
        )

    def _boost(
        self, task: str, fitted: lgb.Dataset, stopping: lgb.Dataset, progress: Progress
    ) -> tuple[str, dict[str, tuple[float, ...]]]:
        """Train one booster; its text cut at the best round, and its loss curves."""
        metric, words = self._measure[0], "NDCG@10" if self.config.ranks else "log loss"
        recorded: dict[str, dict[str, list[float]]] = {}
        sets, names = [stopping], ["valid"]
        if self.config.train_curve:
            sets, names = [fitted, stopping], ["train", "valid"]
        booster = lgb.train(
            self.config.params(),
            fitted,
            num_boost_round=self.config.rounds,
            valid_sets=sets,
            valid_names=names,
            feval=ndcg_of(self.config.gains) if self.config.ranks else None,
            callbacks=[
                lgb.record_evaluation(recorded),
                Watch(task, self.config.rounds, progress, words),
                lgb.early_stopping(self.config.early_stopping_rounds, verbose=False),
            ],
        )
        curves = {name: tuple(recorded[name][metric]) for name in names}
        best = booster.best_iteration
        progress(f"{task}: {best} rounds, {words} {curves['valid'][best - 1]:.6f}")
        return booster.model_to_string(num_iteration=best), curves

    def _adopt(self, texts: Mapping[str, str]) -> None:
        """Keep what the texts say, and nothing else: a loaded model equals the fitted one."""
        self._texts = dict(texts)
        self._boosters = {task: lgb.Booster(model_str=text) for task, text in texts.items()}

    def _importance(self, task: str) -> dict[str, float]:
        gains = self._boosters[task].feature_importance("gain")
        return {name: float(gain) for name, gain in zip(self.spec.columns, gains, strict=True)}

    def predict(self, table: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
        """Per task the probability of a positive label, or the score of a ranking objective,
        (rows,)."""
        matrix = self._matrix(table)
        values: dict[str, npt.NDArray[np.float64]] = {}
        for task in self.tasks:
            self._text(task)
            if table.num_rows == 0:
                values[task] = np.empty(0, dtype=np.float64)
                continue
            found = self._boosters[task].predict(matrix, num_threads=self.config.threads)
            values[task] = np.asarray(found, dtype=np.float64)
        return values

    def combine(
        self, predictions: Mapping[str, npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64]:
        """The weighted sum of the tasks' probabilities, or the score of a ranking objective,
        (rows,)."""
        if self.config.ranks:
            return predictions[RELEVANCE]
        parts = [self.config.weight(task) * predictions[task] for task in self.tasks]
        total: npt.NDArray[np.float64] = np.sum(parts, axis=0, dtype=np.float64)
        return total

    def save(self, folder: Path) -> None:
        """Write ``config.json``, ``feature_spec.json``, ``boosters/<task>.txt`` and, for those who
        read leaves, ``leaves.json``: it follows from the boosters, and is not loaded."""
        (folder / _BOOSTERS).mkdir(parents=True, exist_ok=True)
        for task in self.tasks:
            path = folder / _BOOSTERS / f"{task}.txt"
            path.write_text(self._text(task), encoding="utf-8")
        (folder / SPEC_FILE).write_text(self.spec.to_json() + "\n", encoding="utf-8")
        write_json(
            folder / CONFIG_FILE,
            {
                "family": self.family,
                "config": self.config_dict(),
                "tree_version": self.tree_version,
            },
        )
        texts = {task: self._text(task) for task in self.tasks}
        LeafLayout.of(self.tree_version, texts).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model saved in ``folder``.

        Raises:
            ModelError: for a missing file, or boosters other than those that were saved.
        """
        saved = read_json(folder / CONFIG_FILE)
        spec = FeatureSpec.from_json((folder / SPEC_FILE).read_text(encoding="utf-8"))
        model = cls(GBDTConfig.from_dict(saved["config"]), spec)
        texts = {}
        for task in model.tasks:
            path = folder / _BOOSTERS / f"{task}.txt"
            if not path.is_file():
                raise ModelError(f"{path} is missing; register the model again")
            texts[task] = path.read_text(encoding="utf-8")
        model._adopt(texts)
        if model.tree_version != saved["tree_version"]:
            raise ModelError(
                f"the boosters in {folder} have tree version {model.tree_version[:12]}, but "
                f"{saved['tree_version'][:12]} were saved; register the model again"
            )
        return model
