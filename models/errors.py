"""What models refuse with. Every message says what was seen and what to do."""

from __future__ import annotations

__all__ = ["ConfigError", "ModelError", "SpecError", "TooFewPositives", "TrainingRefused"]


class ModelError(ValueError):
    """Anything that a model refuses; the message says what was seen and what to do."""


class ConfigError(ModelError):
    """A model configuration that cannot be used."""


class SpecError(ModelError):
    """A table, or a stored FeatureSpec, that does not fit; the message names the columns."""


class TrainingRefused(ModelError):  # noqa: N818 - a refusal, and the name the jobs report
    """A training that must not happen on these rows; nothing may be registered from it."""


class TooFewPositives(TrainingRefused):
    """Fewer positive labels than the configuration asks for."""
