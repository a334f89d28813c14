"""Settings of the GBDT ranker: the boosters, and what a row weighs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.errors import ConfigError

__all__ = ["GBDTConfig", "LabelWeight", "SampleWeights"]

BINARY_METRIC: Final = "binary_logloss"


@dataclass(frozen=True)
class LabelWeight:
    """What a label adds to the weight of a row that is positive for a task.

    ``amount`` where the label is 1; with ``log``, for a label that is an amount itself such as
    seconds of stay, ``amount`` * log(1 + value). A configuration says ``10`` or ``{log: 0.5}``.
    """

    amount: float
    log: bool = False

    def of(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weights (n,) added by the label's ``values`` (n,), which are at least 0."""
        return self.amount * (np.log1p(values) if self.log else values)

    def plain(self) -> float | dict[str, float]:
        """As the configuration says it."""
        return {"log": self.amount} if self.log else self.amount

    @classmethod
    def read(cls, value: Any) -> LabelWeight:
        """The inverse of :meth:`plain`; ValueError or TypeError for what it never gives."""
        if not isinstance(value, Mapping):
            return cls(_number(value))
        if set(value) != {"log"}:
            raise ValueError(f"a number or {{log: number}} is wanted, not {dict(value)}")
        return cls(_number(value["log"]), log=True)


SampleWeights = Mapping[str, Mapping[str, LabelWeight]]
"""By task, then by label: what the label adds to the weight of the task's positive rows."""


@dataclass(frozen=True)
class GBDTConfig:
    """Settings of the boosters, the same for every task.

    Attributes:
        weights: coefficients of the tasks' probabilities in the ranking score: 1 each when empty,
            else 0 for a task that is not named.
        sample_weights: by task what labels add to the weight of its positive rows, so that one
            booster balances clicks, orders and stay time:
            ``{click: {click: 1, conversion: 10, stay: {log: 0.5}}}``. A negative row weighs 1, a
            positive one what its task's own label says (1 unless named) plus what the other labels
            add; an immature label adds nothing. The booster's output is then the probability in a
            log in which every row occurs as often as it weighs, not the rate of the task.
        threads: 0 means every core.

    ``max_bin``, ``lambda_l2``, ... mean what they mean in LightGBM.
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
    sample_weights: SampleWeights = field(default_factory=dict)

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
        self._check_sample_weights()

    def _check_weights(self) -> None:
        unknown = sorted(set(self.weights) - set(self.tasks))
        if unknown:
            raise ConfigError(f"weights for tasks that are not trained: {', '.join(unknown)}")
        values = [self.weight(task) for task in self.tasks]
        if not all(math.isfinite(value) for value in values) or not any(values):
            raise ConfigError(f"weights {values} must be finite and not all 0")

    def _check_sample_weights(self) -> None:
        unknown = sorted(set(self.sample_weights) - set(self.tasks))
        if unknown:
            raise ConfigError(f"sample_weights of tasks that are not trained: {', '.join(unknown)}")
        for task, added in self.sample_weights.items():
            for label, weight in added.items():
                where = f"sample_weights.{task}.{label}"
                if not 0 < weight.amount < math.inf:
                    raise ConfigError(
                        f"{where} is {weight.amount}; it must be above 0 and finite: a label that "
                        "shall add nothing is left out"
                    )
                if label == task and weight.log:
                    raise ConfigError(f"{where} is a logarithm; a task's own label is 0 or 1")

    def weight(self, task: str) -> float:
        """The coefficient of ``task`` in the ranking score."""
        return float(self.weights.get(task, 0.0)) if self.weights else 1.0

    @property
    def reads(self) -> tuple[str, ...]:
        """The labels that a fit reads: those of the tasks, then what else weighs their rows."""
        weighing = (label for added in self.sample_weights.values() for label in added)
        return tuple(dict.fromkeys((*self.tasks, *weighing)))

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

    def to_dict(self) -> dict[str, Any]:
        """The inverse of :meth:`from_dict`, in plain JSON values.

        A setting of ``_LEFT_OUT`` that has its default is left out: run keys are made of this, and
        those of configurations that never heard of it stay what they were.
        """
        body = {item.name: getattr(self, item.name) for item in fields(self)}
        body |= {"tasks": list(self.tasks), "weights": dict(self.weights)}
        body["sample_weights"] = {
            task: {label: weight.plain() for label, weight in added.items()}
            for task, added in self.sample_weights.items()
        }
        defaults = {item.name: _default(item) for item in fields(self)}
        for key in _LEFT_OUT:
            if getattr(self, key) == defaults[key]:
                del body[key]
        return body

    def params(self) -> dict[str, Any]:
        """LightGBM's parameters. Row-wise histograms are forced: the automatic choice between
        row-wise and column-wise is made by timing, and may differ from run to run."""
        return {
            "objective": "binary",
            "metric": BINARY_METRIC,
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


_LEFT_OUT: Final = ("sample_weights",)


def _default(item: Any) -> Any:
    return item.default_factory() if item.default is MISSING else item.default


def _plain(key: str, value: Any, kind: Any) -> Any:
    """``value`` as the field's type, or a ConfigError: YAML reads 1e-3 as text, for example."""
    try:
        if key in _READERS:
            return _READERS[key](value)
        if kind == "bool":
            if not isinstance(value, bool):
                raise TypeError("true or false is wanted")
            return value
        if kind == "int":
            return _whole(value)
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"GBDT configuration: {key} is {value!r} ({error})") from error


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a number is wanted")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise TypeError("a whole number is wanted")
    return int(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError("a list is wanted")
    return tuple(str(item) for item in value)


def _numbers_by_name(value: Any) -> dict[str, float]:
    return {str(name): float(number) for name, number in dict(value).items()}


def _sample_weights(value: Any) -> SampleWeights:
    return {
        str(task): {str(label): LabelWeight.read(weight) for label, weight in dict(added).items()}
        for task, added in dict(value).items()
    }


_READERS: Final[Mapping[str, Any]] = {
    "tasks": _names,
    "weights": _numbers_by_name,
    "sample_weights": _sample_weights,
}
