"""What the deep models learn: tasks, their losses, and how their outputs are read.

Shapes: B rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.errors import ConfigError

__all__ = ["BINARY", "LOG_VALUE", "Task", "losses", "parse_tasks", "ranking_score", "readings"]

BINARY: Final = "binary"
LOG_VALUE: Final = "log_value"
_KINDS: Final = (BINARY, LOG_VALUE)


@dataclass(frozen=True)
class Task:
    """One task of a model.

    Attributes:
        kind: ``binary``: whether the label is above 0, by log loss. ``log_value``: log(1 + label),
            such as seconds of stay, by half the squared error.
        weight: of its loss.
        score: of its output in the ranking score: a probability, or log(1 + value).
    """

    name: str
    kind: str = BINARY
    weight: float = 1.0
    score: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(
                f"task {self.name!r} has kind {self.kind!r}; known are {', '.join(_KINDS)}"
            )
        if not self.weight > 0:
            raise ConfigError(f"task {self.name!r} has weight {self.weight}; it must be above 0")

    @property
    def label(self) -> str:
        """The column of its label."""
        return f"label_{self.name}"


def parse_tasks(given: Mapping[str, Any] | Sequence[Any]) -> tuple[Task, ...]:
    """Tasks, in order, from a mapping of names to fields of ``Task``, or from a list of names or of
    mappings with a name.

    Raises:
        ConfigError: for no task, or a field that a task does not have.
    """
    if isinstance(given, Mapping):
        entries = [{"name": name, **(fields or {})} for name, fields in given.items()]
    else:
        entries = [{"name": entry} if isinstance(entry, str) else dict(entry) for entry in given]
    if not entries:
        raise ConfigError("no task; name at least one, such as click")
    names = [entry.get("name") for entry in entries]
    if len(set(names)) < len(names):
        raise ConfigError(f"tasks {names} are named more than once")
    try:
        return tuple(Task(**entry) for entry in entries)
    except TypeError as error:
        raise ConfigError(f"tasks: {error}; a task has kind, weight and score") from error


def losses(tasks: Sequence[Task], outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of every task over its mature rows, and how many those are: (T,) and (T,).

    A NaN label is not mature; a task without any mature row has loss 0.
    """
    mature = ~torch.isnan(labels)
    rows = mature.sum(0)
    known = torch.nan_to_num(labels)
    columns = []
    for place, task in enumerate(tasks):
        output, label = outputs[:, place], known[:, place]
        if task.kind == BINARY:
            each = F.binary_cross_entropy_with_logits(
                output, (label > 0).to(output.dtype), reduction="none"
            )
        else:
            each = 0.5 * (output - torch.log1p(label)).square()
        columns.append(torch.where(mature[:, place], each, 0.0).sum())
    return torch.stack(columns) / rows.clamp(min=1), rows


def readings(
    tasks: Sequence[Task], outputs: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.float64]]:
    """What outputs (B, T) say: by task the probability, or the value, (B,)."""
    values = {}
    for place, task in enumerate(tasks):
        output = outputs[:, place].astype(np.float64)
        if task.kind == BINARY:
            values[task.name] = _sigmoid(output)
        else:
            values[task.name] = np.expm1(np.maximum(output, 0.0))
    return values


def ranking_score(
    tasks: Sequence[Task], values: Mapping[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """The weighted sum of probabilities and log(1 + value)s, (B,)."""
    parts = [
        task.score * (values[task.name] if task.kind == BINARY else np.log1p(values[task.name]))
        for task in tasks
    ]
    total: npt.NDArray[np.float64] = np.sum(parts, axis=0)
    return total


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)
