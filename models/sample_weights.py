"""What a row of the GBDT ranker weighs, as the configuration says it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ConfigError

__all__ = [
    "LabelWeight",
    "SampleWeights",
    "check_sample_weights",
    "number",
    "plain_sample_weights",
    "read_sample_weights",
]


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
            return cls(number(value))
        if set(value) != {"log"}:
            raise ValueError(f"a number or {{log: number}} is wanted, not {dict(value)}")
        return cls(number(value["log"]), log=True)


SampleWeights = Mapping[str, Mapping[str, LabelWeight]]
"""By task, then by label: what the label adds to the weight of the task's positive rows."""


def read_sample_weights(value: Any) -> SampleWeights:
    """Weights from plain values; ValueError or TypeError for what is none."""
    return {
        str(task): {str(label): LabelWeight.read(weight) for label, weight in dict(added).items()}
        for task, added in dict(value).items()
    }


def plain_sample_weights(weights: SampleWeights) -> dict[str, dict[str, Any]]:
    """The inverse of :func:`read_sample_weights`."""
    return {
        task: {label: weight.plain() for label, weight in added.items()}
        for task, added in weights.items()
    }


def check_sample_weights(weights: SampleWeights, tasks: Sequence[str]) -> None:
    """Refuse, by its name, a weight that is none, or one of a task that is not among ``tasks``.

    Raises:
        ConfigError: for such a weight.
    """
    unknown = sorted(set(weights) - set(tasks))
    if unknown:
        raise ConfigError(f"sample_weights of tasks that are not trained: {', '.join(unknown)}")
    for task, added in weights.items():
        for label, weight in added.items():
            where = f"sample_weights.{task}.{label}"
            if not 0 < weight.amount < math.inf:
                raise ConfigError(
                    f"{where} is {weight.amount}; it must be above 0 and finite: a label that "
                    "shall add nothing is left out"
                )
            if label == task and weight.log:
                raise ConfigError(f"{where} is a logarithm; a task's own label is 0 or 1")


def number(value: Any) -> float:
    """A number of a configuration; ValueError or TypeError for what is none."""
    if isinstance(value, bool):
        raise TypeError("a number is wanted")
    return float(value)
