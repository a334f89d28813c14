"""The contract of every model: what it reads (FeatureSpec), and how it is used and kept; and what a
ranker adds to it.

A model is a frozen config dataclass beside a class. It reads Arrow tables and knows nothing of
Spark, Airflow or MLflow.
"""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import ConfigError, ModelError, SpecError, TooFewPositives, TrainingRefused
from models.features import (
    SPACE_COLUMN,
    FeatureSpec,
    PretrainedColumn,
    SequenceColumn,
    SparseColumn,
    encode_sparse,
)

__all__ = [
    "CONFIG_FILE",
    "LABEL_PREFIX",
    "SPACE_COLUMN",
    "SPEC_FILE",
    "ConfigError",
    "FeatureSpec",
    "FitReport",
    "Model",
    "ModelError",
    "OutputColumn",
    "PretrainedColumn",
    "Progress",
    "Ranker",
    "SequenceColumn",
    "SparseColumn",
    "SpecError",
    "TooFewPositives",
    "TrainingRefused",
    "encode_sparse",
    "read_json",
    "silent",
    "write_json",
]

LABEL_PREFIX: Final = "label_"
SPEC_FILE: Final = "feature_spec.json"
CONFIG_FILE: Final = "config.json"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class FitReport:
    """What a fit did, by task. Losses are on the early-stopping rows unless the curve says else;
    ``numbers`` are what a family says besides, ``speeds`` samples a second by epoch, ``measure``
    what the curves hold where it is no loss."""

    rounds: Mapping[str, int]
    curves: Mapping[str, Mapping[str, tuple[float, ...]]]
    importances: Mapping[str, Mapping[str, float]]
    rows: Mapping[str, int]
    positives: Mapping[str, int]
    immature: Mapping[str, int]
    seconds: float
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    speeds: tuple[float, ...] = ()
    measure: str = "loss"

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a tracker: ``fit_<what>_<task>``; what is not finite is left out."""
        flat: dict[str, float] = {"fit_seconds": self.seconds}
        flat |= {f"fit_{name}": value for name, value in self.numbers.items()}
        for task, rounds in self.rounds.items():
            flat[f"fit_rounds_{task}"] = float(rounds)
            flat[f"fit_rows_{task}"] = float(self.rows[task])
            flat[f"fit_positives_{task}"] = float(self.positives[task])
            flat[f"fit_immature_{task}"] = float(self.immature[task])
            valid = self.curves[task].get("valid", ())
            if valid:
                flat[f"fit_valid_{self.measure}_{task}"] = valid[max(rounds - 1, 0)]
        return {key: value for key, value in flat.items() if math.isfinite(value)}

    def history(self) -> dict[str, tuple[float, ...]]:
        """Numbers by round or epoch: ``loss_<rows>_<task>`` and ``samples_per_second``."""
        found = {
            f"{self.measure}_{rows}_{task}": values
            for task, curves in self.curves.items()
            for rows, values in curves.items()
        }
        return {**found, "samples_per_second": self.speeds} if self.speeds else found


def silent(message: str) -> None:
    """A progress function that prints nothing."""
    del message


@dataclass(frozen=True)
class OutputColumn:
    """A column of what a pyfunc returns; ``kind`` as MLflow names types, ``many`` a list of it."""

    name: str
    kind: str = "double"
    many: bool = False


class Model(abc.ABC):
    """Whatever can be registered.

    A subclass sets ``family`` (its key in the zoo), ``packages`` (what loading it needs besides
    MLflow, NumPy and Arrow), ``kind`` (MLflow runs ``pyfunc_<kind>.py``) and ``options`` (that its
    pyfunc takes, with their defaults), and keeps ``config`` (a frozen dataclass) and ``spec``.
    """

    family: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str]
    options: ClassVar[Mapping[str, str | int | bool]] = MappingProxyType({})
    spec: FeatureSpec

    @property
    def tree_version(self) -> str:
        """A hash that changes with every refit of the trees; empty for a model without trees."""
        return ""

    @property
    def optimizer_state(self) -> Mapping[str, Any] | None:
        """The optimizer's accumulators by name; None for a model that is not trained further."""
        return None

    @abc.abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""

    @abc.abstractmethod
    def returns(self) -> tuple[OutputColumn, ...]:
        """The columns that its pyfunc returns."""

    @abc.abstractmethod
    def probe(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """One number a row by which to see that it works: finite, the same when asked again."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights, configuration and FeatureSpec below ``folder``; never a pickle."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path) -> Self:
        """The inverse of :meth:`save`."""


class Ranker(Model):
    """A model that scores candidates; one of ``MODELS``."""

    kind: ClassVar[str] = "ranker"

    @property
    @abc.abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """The tasks it predicts, in the configured order."""

    @property
    def probabilities(self) -> tuple[str, ...]:
        """The tasks whose predictions are probabilities of their labels."""
        return self.tasks

    @abc.abstractmethod
    def fit(self, train: pa.Table, valid: pa.Table, progress: Progress = silent) -> FitReport:
        """Fit on ``train``, stopping early on ``valid``. A null label is immature and masked."""

    @abc.abstractmethod
    def predict(self, table: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
        """Per task one value a row: the probability of the task's label, how much of it, or a
        score."""

    @abc.abstractmethod
    def combine(
        self, predictions: Mapping[str, npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64]:
        """The ranking score from what :meth:`predict` gave, (rows,); larger ranks higher."""

    def score(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """One ranking score a row."""
        return self.combine(self.predict(table))

    def probe(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """The ranking scores."""
        return self.score(table)

    def returns(self) -> tuple[OutputColumn, ...]:
        """A column a task, and the ranking score."""
        return tuple(OutputColumn(name) for name in (*self.tasks, "score"))


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write ``body`` as indented JSON with sorted keys; NaN and infinities are refused."""
    text = json.dumps(body, indent=2, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: when the file is missing or holds something else.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; the folder does not hold a saved model") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON ({error}); register the model again") from error
    if not isinstance(body, dict):
        raise ModelError(f"{path} holds {type(body).__name__}, not an object")
    return body
