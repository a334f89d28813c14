"""Settings of the GBDT ranker: the boosters, what they learn, and what a row weighs or is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import pairwise
from typing import Any, Final

from models.errors import ConfigError
from models.metrics import exponential_gains
from models.sample_weights import (
    SampleWeights,
    check_sample_weights,
    number,
    plain_sample_weights,
    read_sample_weights,
)

__all__ = ["BINARY_METRIC", "NDCG", "RELEVANCE", "GBDTConfig"]

BINARY_METRIC: Final = "binary_logloss"
NDCG: Final = "ndcg_at_10"
"""What stops a ranking objective."""
RELEVANCE: Final = "relevance"
"""What the booster of a ranking objective predicts: a score, not a probability."""

_RANKING: Final = ("lambdarank", "rank_xendcg")
_WAYS: Final = ("retrain", "continue", "refit")
_GRADES: Final = 30  # the highest that LightGBM takes


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
        objective: ``binary``, a booster a task by its log loss; or ``lambdarank`` (Burges et al.,
            2006) or ``rank_xendcg`` (Bruch et al., 2020), one booster that orders the rows of a
            group by their grades, stopped by NDCG@10. Its output is a score.
        grades: by task the grade, from 1, of a row with that label; the highest one counts. A
            group is used once the first task is known for all of it, and what else is not known
            yet lifts nothing. One task alone has grade 1.
        label_gain: gains by grade from grade 0 on; 2 ** grade - 1 when empty.
        debias: ``position``: lambdarank learns beside the trees how much each position adds to a
            score, as position-debiased LambdaMART does, and prediction leaves that out. It reads
            the training-only column of the FeatureSpec.
        position_regularization: pulls what positions add towards 0.
        way: how an hour's booster comes about. ``retrain``: grown anew. ``continue``: the
            champion's trees and at most ``continue_rounds`` more, until that would make more than
            ``max_trees``; it is then grown anew. ``refit``: the champion's trees with other leaf
            values, of which ``refit_decay`` is what they were.
        negative_share: w in (0, 1], the share of each task's negative training rows that are
            fitted on, drawn by the hash of the impression; 1 keeps all. What is predicted is
            corrected, task by task, to the rate among all rows (:mod:`models.calibration`), and so
            is the loss that stops a fit; the boosters themselves give log odds that are higher by
            -log w.

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
    min_sum_hessian: float = 1e-3
    objective: str = "binary"
    grades: Mapping[str, int] = field(default_factory=dict)
    label_gain: tuple[float, ...] = ()
    debias: str = "none"
    position_regularization: float = 0.0
    way: str = "retrain"
    continue_rounds: int = 20
    max_trees: int = 1000
    refit_decay: float = 0.9
    negative_share: float = 1.0

    def __post_init__(self) -> None:
        self._check_numbers()
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"tasks is {list(self.tasks)}; name at least one, each once")
        self._check_weights()
        check_sample_weights(self.sample_weights, self.tasks)
        self._check_objective()
        self._check_debias()
        self._check_way()

    def _check_numbers(self) -> None:
        for key in ("rounds", "early_stopping_rounds", "min_data_in_leaf", "min_positives"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("feature_fraction", "bagging_fraction", "negative_share"):
            if not 0 < getattr(self, key) <= 1:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must lie in (0, 1]")
        if self.num_leaves < 2 or self.max_bin < 2:
            raise ConfigError(
                f"num_leaves is {self.num_leaves}, max_bin {self.max_bin}; both must be at least 2"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"learning_rate is {self.learning_rate}; it must be above 0 and finite"
            )
        for key in ("lambda_l2", "min_sum_hessian", "position_regularization"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(
                    f"{key} is {getattr(self, key)}; it must be finite, and at least 0"
                )
        if self.threads < 0 or self.seed < 0:
            raise ConfigError(f"threads {self.threads} and seed {self.seed} must not be negative")

    def _check_weights(self) -> None:
        unknown = sorted(set(self.weights) - set(self.tasks))
        if unknown:
            raise ConfigError(f"weights for tasks that are not trained: {', '.join(unknown)}")
        values = [self.weight(task) for task in self.tasks]
        if not all(math.isfinite(value) for value in values) or not any(values):
            raise ConfigError(f"weights {values} must be finite and not all 0")

    def _check_objective(self) -> None:
        if self.objective not in ("binary", *_RANKING):
            raise ConfigError(
                f"objective is {self.objective!r}; known are binary, {', '.join(_RANKING)}"
            )
        unused = ("weights", "sample_weights") if self.ranks else ("grades", "label_gain")
        for key in unused:
            if getattr(self, key):
                raise ConfigError(
                    f"{key} is given, but objective {self.objective} does not read it; leave it out"
                )
        if not self.ranks:
            return
        if self.samples:
            raise ConfigError(
                f"negative_share is {self.negative_share}, but objective {self.objective} orders "
                "whole groups, of which no row can be left out; set it to 1"
            )
        if set(self.graded) != set(self.tasks):
            raise ConfigError(
                f"grades is {dict(self.grades)}; give each of the tasks {list(self.tasks)} a grade"
            )
        wrong = {task: grade for task, grade in self.graded.items() if not 1 <= grade <= _GRADES}
        if wrong:
            raise ConfigError(f"grades {wrong} must be whole numbers from 1 to {_GRADES}")
        self._check_gains()

    def _check_gains(self) -> None:
        gains, highest = self.gains, max(self.graded.values())
        if len(gains) <= highest:
            raise ConfigError(
                f"label_gain has {len(gains)} gains; with grades up to {highest} it needs "
                f"{highest + 1}"
            )
        rising = all(low < high for low, high in pairwise(gains))
        if not rising or gains[0] < 0 or not math.isfinite(gains[-1]):
            raise ConfigError(f"label_gain {list(gains)} must rise from 0 or more, and be finite")

    def _check_debias(self) -> None:
        if self.debias not in ("none", "position"):
            raise ConfigError(f"debias is {self.debias!r}; known are none, position")
        if self.debias == "position" and self.objective != "lambdarank":
            raise ConfigError(
                f"debias is 'position', but objective is {self.objective}; only lambdarank learns "
                "what a position adds"
            )
        if self.position_regularization and self.debias == "none":
            raise ConfigError(
                f"position_regularization is {self.position_regularization}, but debias is none; "
                "set debias to position"
            )

    def _check_way(self) -> None:
        if self.way not in _WAYS:
            raise ConfigError(f"way is {self.way!r}; known are {', '.join(_WAYS)}")
        if not 1 <= self.continue_rounds < self.max_trees:
            raise ConfigError(
                f"continue_rounds {self.continue_rounds} must be at least 1 and below max_trees "
                f"{self.max_trees}"
            )
        if not 0 <= self.refit_decay < 1:
            raise ConfigError(
                f"refit_decay is {self.refit_decay}; it must lie in [0, 1), and 1 would change "
                "nothing"
            )
        if self.way == "refit" and self.debias == "position":
            raise ConfigError(
                "way is 'refit', but debias is 'position': LightGBM refits leaves without knowing "
                "positions; retrain or continue"
            )

    @property
    def ranks(self) -> bool:
        """Whether one booster orders groups, instead of one a task that gives probabilities."""
        return self.objective in _RANKING

    @property
    def samples(self) -> bool:
        """Whether a fit leaves out negatives."""
        return self.negative_share < 1

    @property
    def graded(self) -> Mapping[str, int]:
        """By task the grade of its rows, for a ranking objective."""
        return self.grades or ({self.tasks[0]: 1} if len(self.tasks) == 1 else {})

    @property
    def gains(self) -> tuple[float, ...]:
        """Gains by grade, from grade 0 on."""
        return self.label_gain or exponential_gains(max(self.graded.values()))

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
        body |= {"tasks": list(self.tasks), "label_gain": list(self.label_gain)}
        body |= {"weights": dict(self.weights), "grades": dict(self.grades)}
        body["sample_weights"] = plain_sample_weights(self.sample_weights)
        defaults = {item.name: _default(item) for item in fields(self)}
        for key in _LEFT_OUT:
            if getattr(self, key) == defaults[key]:
                del body[key]
        return body

    def params(self) -> dict[str, Any]:
        """LightGBM's parameters. Row-wise histograms are forced: the automatic choice between
        row-wise and column-wise is made by timing, and may differ from run to run."""
        return {
            **(self._ranking() if self.ranks else self._binary()),
            "verbosity": -1,
            "deterministic": True,
            "force_row_wise": True,
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_data_in_leaf,
            "min_sum_hessian_in_leaf": self.min_sum_hessian,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": int(self.bagging_fraction < 1),
            "lambda_l2": self.lambda_l2,
            "max_bin": self.max_bin,
            "cat_smooth": self.cat_smooth,
            "seed": self.seed,
            # Else derived from the seed for a table, but not for rows that are read in turn.
            "data_random_seed": self.seed,
            "num_threads": self.threads,
        }

    def _binary(self) -> dict[str, Any]:
        # The loss of corrected probabilities is a function of ours.
        return {"objective": "binary", "metric": "None" if self.samples else BINARY_METRIC}

    def _ranking(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "metric": "None",  # ours is a function
            "label_gain": list(self.gains),
            "lambdarank_position_bias_regularization": self.position_regularization,
        }


_LEFT_OUT: Final = (
    "sample_weights", "min_sum_hessian", "objective", "grades", "label_gain", "debias",
    "position_regularization", "way", "continue_rounds", "max_trees", "refit_decay",
    "negative_share",
)  # fmt: skip


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
        return str(value) if kind == "str" else float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"GBDT configuration: {key} is {value!r} ({error})") from error


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


_READERS: Final[Mapping[str, Any]] = {
    "tasks": _names,
    "weights": _numbers_by_name,
    "sample_weights": read_sample_weights,
    "grades": lambda value: {str(task): _whole(grade) for task, grade in dict(value).items()},
    "label_gain": lambda value: tuple(number(gain) for gain in value),
}
