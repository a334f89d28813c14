"""Pointwise gradient-boosted trees: one LightGBM booster a task, a weighted sum to rank by.

Tables go from Arrow into LightGBM's bins without a copy in between but the codes of the sparse
columns; the bins are made once and serve every task.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.base import (
    CONFIG_FILE,
    SPEC_FILE,
    ConfigError,
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
from models.boosting import Labels, Watch, mature_labels, with_labels
from models.leaf_layout import LeafLayout

__all__ = ["GBDTConfig", "GBDTRanker"]

_BOOSTERS: Final = "boosters"
_METRIC: Final = "binary_logloss"


@dataclass(frozen=True)
class GBDTConfig:
    """Settings of the boosters, the same for every task.

    ``weights`` are the coefficients of the tasks' probabilities in the ranking score: 1 each when
    empty, else 0 for a task that is not named. ``threads`` 0 means every core. ``max_bin``,
    ``lambda_l2``, ... mean what they mean in LightGBM.
    """

    tasks: tuple[str, ...] = ("click",)
    weights: Mapping[str, float] = field(default_factory=dict)
    num_leaves: int = 31
    learning_rate: float = 0.05
    rounds: int = 300
    early_stopping_rounds: int = 30
    min_data_in_leaf: int = 100
    feature_fraction: float = 1.0
    bagging_fraction: float = 1.0
    lambda_l2: float = 0.0
    max_bin: int = 255
    cat_smooth: float = 10.0
    seed: int = 0
    threads: int = 0
    min_positives: int = 50
    train_curve: bool = False

    def __post_init__(self) -> None:
        for key in ("rounds", "early_stopping_rounds", "min_data_in_leaf", "min_positives"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("feature_fraction", "bagging_fraction"):
            if not 0 < getattr(self, key) <= 1:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must lie in (0, 1]")
        if self.num_leaves < 2 or self.max_bin < 2:
            raise ConfigError(
                f"num_leaves is {self.num_leaves}, max_bin {self.max_bin}; both must be at least 2"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.lambda_l2 < math.inf:
            raise ConfigError(
                f"learning_rate {self.learning_rate} must be above 0, lambda_l2 {self.lambda_l2} "
                "not below, both finite"
            )
        if self.threads < 0 or self.seed < 0:
            raise ConfigError(f"threads {self.threads} and seed {self.seed} must not be negative")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"tasks is {list(self.tasks)}; name at least one, each once")
        self._check_weights()

    def _check_weights(self) -> None:
        unknown = sorted(set(self.weights) - set(self.tasks))
        if unknown:
            raise ConfigError(f"weights for tasks that are not trained: {', '.join(unknown)}")
        values = [self.weight(task) for task in self.tasks]
        if not all(math.isfinite(value) for value in values) or not any(values):
            raise ConfigError(f"weights {values} must be finite and not all 0")

    def weight(self, task: str) -> float:
        """The coefficient of ``task`` in the ranking score."""
        return float(self.weights.get(task, 0.0)) if self.weights else 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GBDTConfig:
        """A configuration from plain values, as read from YAML or JSON.

        Raises:
            ConfigError: naming an unknown key, or a value that cannot be used.
        """
        known = {item.name: item for item in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"unknown keys in the GBDT configuration: {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}"
            )
        return cls(**{key: _plain(key, value, known[key].type) for key, value in values.items()})

    def params(self) -> dict[str, Any]:
        """LightGBM's parameters. Row-wise histograms are forced: the automatic choice between
        row-wise and column-wise is made by timing, and may differ from run to run."""
        return {
            "objective": "binary",
            "metric": _METRIC,
            "verbosity": -1,
            "deterministic": True,
            "force_row_wise": True,
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_data_in_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": int(self.bagging_fraction < 1),
            "lambda_l2": self.lambda_l2,
            "max_bin": self.max_bin,
            "cat_smooth": self.cat_smooth,
            "seed": self.seed,
            "num_threads": self.threads,
        }


def _plain(key: str, value: Any, kind: Any) -> Any:
    """``value`` as the field's type, or a ConfigError: YAML reads 1e-3 as text, for example."""
    try:
        if key == "tasks":
            if isinstance(value, str):
                raise TypeError("a list is wanted")
            return tuple(str(task) for task in value)
        if key == "weights":
            return {str(task): float(weight) for task, weight in dict(value).items()}
        if kind == "bool":
            if not isinstance(value, bool):
                raise TypeError("true or false is wanted")
            return value
        if kind == "int":
            if isinstance(value, bool) or int(value) != float(value):
                raise TypeError("a whole number is wanted")
            return int(value)
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"GBDT configuration: {key} is {value!r} ({error})") from error


class GBDTRanker(Ranker):
    """One booster a task on the dense columns and the codes of the sparse ones.

    The ranking score is the weighted sum of the tasks' probabilities.
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
        self.config = config
        self.spec = spec
        self._texts: dict[str, str] = {}
        self._boosters: dict[str, lgb.Booster] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.config.tasks

    @property
    def tree_version(self) -> str:
        """SHA-256 over the boosters' texts in task order: leaf ids mean nothing beyond it."""
        digest = hashlib.sha256()
        for task in self.tasks:
            digest.update(f"{task}\n{self._text(task)}".encode())
        return digest.hexdigest()

    def config_dict(self) -> dict[str, Any]:
        return {**asdict(self.config), "tasks": list(self.tasks)}

    def booster_text(self, task: str) -> str:
        """The booster of ``task`` as LightGBM writes it."""
        return self._text(task)

    def _text(self, task: str) -> str:
        if task not in self._texts:
            raise ModelError(f"the booster of task {task!r} is not there; call fit or load first")
        return self._texts[task]

    def fit(self, train: pa.Table, valid: pa.Table, progress: Progress = silent) -> FitReport:
        """Fit one booster a task on ``train``, each stopped by its log loss on ``valid``.

        A row whose label is null is masked for that task.

        Raises:
            SpecError: when a table lacks a feature or label column.
            TrainingRefused: for too few positives, one class only, labels that are not 0 or 1, or
                a loss that is not finite; the sentence names the task.
        """
        started = time.perf_counter()
        labels = {task: self._labels(train, valid, task) for task in self.tasks}
        data = self._binned(train, None)
        held = self._binned(valid, data)
        steps = {"bin": time.perf_counter() - started}
        progress(f"binned {train.num_rows:,} rows x {len(self.spec.columns)} columns")
        curves: dict[str, dict[str, tuple[float, ...]]] = {}
        texts: dict[str, str] = {}
        for task, (fitted, stopping) in labels.items():
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
            rows={task: len(fitted.values) for task, (fitted, _) in labels.items()},
            positives={task: fitted.positives for task, (fitted, _) in labels.items()},
            immature={task: fitted.immature for task, (fitted, _) in labels.items()},
            seconds=time.perf_counter() - started,
            seconds_by_step=steps,
        )

    def _binned(self, table: pa.Table, reference: lgb.Dataset | None) -> lgb.Dataset:
        """The table in bins (those of ``reference``, if given); labels are set task by task."""
        return lgb.Dataset(
            self._matrix(table),
            label=np.zeros(table.num_rows, dtype=np.float32),
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
        return fitted, stopping

    def _boost(
        self, task: str, fitted: lgb.Dataset, stopping: lgb.Dataset, progress: Progress
    ) -> tuple[str, dict[str, tuple[float, ...]]]:
        """Train one booster; its text cut at the best round, and its loss curves."""
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
            callbacks=[
                lgb.record_evaluation(recorded),
                Watch(task, self.config.rounds, progress),
                lgb.early_stopping(self.config.early_stopping_rounds, verbose=False),
            ],
        )
        curves = {name: tuple(recorded[name][_METRIC]) for name in names}
        best = booster.best_iteration
        progress(f"{task}: {best} rounds, log loss {curves['valid'][best - 1]:.6f}")
        return booster.model_to_string(num_iteration=best), curves

    def _adopt(self, texts: Mapping[str, str]) -> None:
        """Keep what the texts say, and nothing else: a loaded model equals the fitted one."""
        self._texts = dict(texts)
        self._boosters = {task: lgb.Booster(model_str=text) for task, text in texts.items()}

    def _importance(self, task: str) -> dict[str, float]:
        gains = self._boosters[task].feature_importance("gain")
        return {name: float(gain) for name, gain in zip(self.spec.columns, gains, strict=True)}

    def predict(self, table: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
        """Per task the probability of a positive label, (rows,)."""
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
        """The weighted sum of the tasks' probabilities, (rows,)."""
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
