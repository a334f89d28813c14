"""Gradient-boosted trees: one LightGBM booster a task and a weighted sum to rank by, or one booster
that learns the order of a group.

Tables go from Arrow into LightGBM's bins without a copy in between but the codes of the sparse
columns; the bins are made once and serve every task.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
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
    encode_sparse,
    read_json,
    silent,
    write_json,
)
from models.boosting import Labels, with_labels
from models.calibration import undo_down_sampling
from models.gbdt_config import NDCG, RELEVANCE, GBDTConfig
from models.gbdt_targets import Targets, targets_of
from models.gbdt_ways import Grown, Rows, continued, grown, refitted, tree_count
from models.leaf_layout import LeafLayout
from models.spilled_rows import SpilledRows

__all__ = ["GBDTConfig", "GBDTRanker"]

_BOOSTERS: Final = "boosters"
_LEARNED: Final = (
    "tasks", "objective", "grades", "label_gain", "sample_weights", "debias", "negative_share",
)  # fmt: skip
"""Settings that say what is learned: trees of others are not gone on from."""


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

    def fit(
        self,
        train: pa.Table,
        valid: pa.Table,
        progress: Progress = silent,
        champion: GBDTRanker | None = None,
    ) -> FitReport:
        """Fit the boosters on ``train``, each stopped by its log loss, or NDCG@10, on ``valid``.

        A row whose label is null is masked for that task, and with ``negative_share`` below 1 so
        are the negatives that were not drawn. Where the configuration weighs samples,
        the loss that stops it is of rows weighed alike. For a ranking objective see
        :func:`models.graded.graded_rows`.

        The report's rounds and curves are of this fit alone; its importances are of all trees.

        Args:
            champion: whose trees are continued or refitted, as the configuration's ``way`` says;
                without one, boosters are grown anew.

        Raises:
            SpecError: when a table lacks a feature or label column.
            ModelError: for a champion that does not fit (see :meth:`warm_refusal`).
            TrainingRefused: for too few positives, one class only, labels that are not 0 or 1, or
                a loss or sample weight that is not finite; the sentence names the task.
        """
        return self.prepared(train, valid, progress, champion)()

    def reads_spilled(self, champion: GBDTRanker | None = None) -> bool:
        """Whether :meth:`prepared` takes rows on disk: where groups need not be brought together,
        and no champion scores the rows first."""
        return champion is None and not self.config.ranks

    def prepared(
        self,
        train: pa.Table | SpilledRows,
        valid: pa.Table,
        progress: Progress = silent,
        champion: GBDTRanker | None = None,
    ) -> Callable[[], FitReport]:
        """The first half of :meth:`fit`; what it returns is the second, and grows the trees.

        Where they are grown anew that needs the bins alone: who lets go of ``train`` in between
        does not hold both. Rows on disk make the very trees that a table of them makes.

        Raises:
            ModelError: for rows on disk where :meth:`reads_spilled` is false; else as :meth:`fit`.
        """
        started = time.perf_counter()
        if champion is not None and (reason := self.warm_refusal(champion)) is not None:
            raise ModelError(f"no warm start: {reason}; fit without a champion")
        if isinstance(train, SpilledRows) and not self.reads_spilled(champion):
            raise ModelError(
                "rows on disk are binned in the order in which they come, and by nobody who scores "
                "them first; give a table to a ranking objective, and to trees that go on"
            )
        told = train.beside if isinstance(train, SpilledRows) else train
        targets, numbers = targets_of(self.config, self.spec, told, valid)
        steps: dict[str, float] = {}
        if champion is None:
            grow = self._retrained(train, valid, targets, steps, progress)
        else:
            grow = partial(self._warmed, train, valid, targets, champion, steps, progress)

        def finish() -> FitReport:
            made = grow()
            return self._report(made, targets, numbers, steps, time.perf_counter() - started)

        return finish

    def _report(
        self, made: Mapping[str, Grown], targets: Targets, numbers: Mapping[str, float],
        steps: dict[str, float], seconds: float,
    ) -> FitReport:  # fmt: skip
        """Adopt what was made, and say what it was made of."""
        self._adopt({task: one.text for task, one in made.items()})
        trees = {f"trees_{task}": float(self._boosters[task].num_trees()) for task in self.tasks}
        return FitReport(
            rounds={task: one.rounds for task, one in made.items()},
            curves={task: one.curves for task, one in made.items()},
            importances={task: self._importance(task) for task in self.tasks},
            rows={task: len(fitted.values) for task, (fitted, _) in targets.items()},
            positives={task: fitted.positives for task, (fitted, _) in targets.items()},
            immature={task: fitted.immature for task, (fitted, _) in targets.items()},
            seconds=seconds,
            seconds_by_step=steps,
            numbers={**numbers, **trees},
            measure=NDCG if self.config.ranks else "loss",
        )

    def _retrained(
        self, train: pa.Table | SpilledRows, valid: pa.Table, targets: Targets,
        steps: dict[str, float], progress: Progress,
    ) -> Callable[[], dict[str, Grown]]:  # fmt: skip
        """Boosters grown anew on bins that all tasks share; seconds are added to ``steps``."""
        began = time.perf_counter()
        fitted, stopping = next(iter(targets.values()))
        rows = train if isinstance(train, SpilledRows) else self._ordered(train, fitted)
        data = self._binned(rows, None)
        held = self._binned(self._ordered(valid, stopping), data)
        steps["bin"] = time.perf_counter() - began
        progress(f"binned {data.num_data():,} rows x {len(self.spec.columns)} columns")

        def grow() -> dict[str, Grown]:
            made = {}
            for task, (mine, theirs) in targets.items():
                began = time.perf_counter()
                both = with_labels(data, mine), with_labels(held, theirs)
                made[task] = grown(self.config, task, *both, progress)
                steps[f"boost_{task}"] = time.perf_counter() - began
            return made

        return grow

    def _warmed(
        self, train: pa.Table, valid: pa.Table, targets: Targets, champion: GBDTRanker,
        steps: dict[str, float], progress: Progress,
    ) -> dict[str, Grown]:  # fmt: skip
        """Boosters that the champion's become; seconds are added to ``steps``."""
        categorical = [column.name for column in self.spec.sparse]
        fitted, stopping = next(iter(targets.values()))
        matrices = self._ordered(train, fitted), self._ordered(valid, stopping)
        made = {}
        for task, labels in targets.items():
            began = time.perf_counter()
            mine, held = (Rows.of(*both) for both in zip(matrices, labels, strict=True))
            text = champion.booster_text(task)
            if self.config.way == "continue":
                made[task] = continued(self.config, task, text, mine, held, categorical, progress)
            else:
                made[task] = refitted(self.config, task, text, mine, held, progress)
            steps[f"{self.config.way}_{task}"] = time.perf_counter() - began
        return made

    def warm_refusal(self, champion: Ranker) -> str | None:
        """Why a fit cannot go on from ``champion``; None when it can."""
        if not isinstance(champion, GBDTRanker):
            return f"it is of family {champion.family}, not {self.family}"
        if self.config.way == "retrain":
            return "way is 'retrain'"
        for key in _LEARNED:
            mine, theirs = getattr(self.config, key), getattr(champion.config, key)
            if mine != theirs:
                return f"its {key} is {theirs!r}, not {mine!r}"
        try:
            self.spec.require(champion.spec)
        except SpecError as error:
            return str(error)
        if self.config.way == "continue":
            return self._too_many(champion)
        return None

    def _too_many(self, champion: GBDTRanker) -> str | None:
        for task in self.tasks:
            trees, more = tree_count(champion.booster_text(task)), self.config.continue_rounds
            if trees + more > self.config.max_trees:
                return (
                    f"it has {trees} trees for {task!r}, and {more} more may be above max_trees "
                    f"{self.config.max_trees}"
                )
        return None

    def _ordered(self, table: pa.Table, labels: Labels) -> pa.Table:
        """The matrix of the table's rows, in the order that ``labels`` want."""
        matrix = self.matrix(table)
        return matrix if labels.order is None else matrix.take(pa.array(labels.order))

    def _binned(self, matrix: pa.Table | SpilledRows, reference: lgb.Dataset | None) -> lgb.Dataset:
        """The rows in bins (those of ``reference``, if given); labels are set task by task."""
        return lgb.Dataset(
            matrix,
            label=np.zeros(matrix.num_rows, dtype=np.float32),
            reference=reference,
            feature_name=list(self.spec.columns),
            categorical_feature=[column.name for column in self.spec.sparse],
            params=self.config.params(),
        ).construct()

    def matrix(self, table: pa.Table) -> pa.Table:
        """The feature columns in spec order: dense as they are, sparse as int32 codes."""
        self.spec.check(table)
        columns = {name: table.column(name) for name in self.spec.dense}
        for column in self.spec.sparse:
            columns[column.name] = pa.array(
                encode_sparse(table.column(column.name), column.buckets)
            )
        return pa.table(columns)

    def _adopt(self, texts: Mapping[str, str]) -> None:
        """Keep what the texts say, and nothing else: a loaded model equals the fitted one."""
        self._texts = dict(texts)
        self._boosters = {task: lgb.Booster(model_str=text) for task, text in texts.items()}

    def _importance(self, task: str) -> dict[str, float]:
        gains = self._boosters[task].feature_importance("gain")
        return {name: float(gain) for name, gain in zip(self.spec.columns, gains, strict=True)}

    def predict(self, table: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
        """Per task the probability of a positive label among all rows, however many negatives were
        fitted on, or the score of a ranking objective, (rows,)."""
        matrix = self.matrix(table)
        values: dict[str, npt.NDArray[np.float64]] = {}
        for task in self.tasks:
            self._text(task)
            if table.num_rows == 0:
                values[task] = np.empty(0, dtype=np.float64)
                continue
            told = self._boosters[task].predict(matrix, num_threads=self.config.threads)
            found = np.asarray(told, dtype=np.float64)
            if self.config.samples:
                found = undo_down_sampling(found, self.config.negative_share)
            values[task] = found
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
