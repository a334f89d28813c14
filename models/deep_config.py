"""What every deep model is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from models.errors import ConfigError
from models.network import DEBIASING
from models.objectives import Task, parse_tasks
from models.trainer import TrainingConfig

__all__ = ["DeepConfig"]


@dataclass(frozen=True)
class DeepConfig:
    """What every deep model is told; a family adds its own.

    Attributes:
        tasks: names, names to fields of :class:`models.objectives.Task`, or a list of such fields;
            their order is that of the outputs.
        embedding: width d of the embeddings.
        debias: ``none``; ``feature``: training-only columns such as the position are features, and
            scores are those of the first position; ``bias_net``: see
            :class:`models.network.BiasNet`.
        min_positives: positive labels that every binary task needs to be fitted.
        training: fields of :class:`models.trainer.TrainingConfig`.
    """

    tasks: Mapping[str, Any] | tuple[Any, ...] = ("click",)
    embedding: int = 16
    debias: str = "none"
    min_positives: int = 50
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise ConfigError(f"embedding is {self.embedding}; it must be at least 1")
        if self.debias not in DEBIASING:
            raise ConfigError(f"debias is {self.debias!r}; known are {', '.join(DEBIASING)}")
        parse_tasks(self.tasks)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """A configuration from plain values; what belongs to the training may stand beside.

        Raises:
            ConfigError: for a key that is not known, or a value that cannot be.
        """
        own = {f.name for f in fields(cls)}
        loop = {f.name for f in fields(TrainingConfig)}
        values = dict(given)
        training = {**(values.pop("training", None) or {})}
        training |= {key: values.pop(key) for key in list(values) if key in loop - own}
        unknown = sorted((set(values) - own) | (set(training) - loop))
        if unknown:
            raise ConfigError(
                f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(own | loop))}"
            )
        for key, value in values.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        try:
            return cls(**values, training=TrainingConfig(**training))
        except TypeError as error:
            raise ConfigError(f"a value has the wrong type: {error}") from error

    @property
    def parsed_tasks(self) -> tuple[Task, ...]:
        """The tasks in the configured order."""
        return parse_tasks(self.tasks)
