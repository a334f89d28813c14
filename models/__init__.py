"""Rankers, the metrics that judge them, and the registry that keeps them.

``MODELS`` is the zoo: a new model is one file and one line in ``zoo.py``. No family is imported
here: whoever needs trees does not wait for torch, nor the other way round.
"""

from __future__ import annotations

from models.base import (
    ConfigError,
    FeatureSpec,
    FitReport,
    Model,
    ModelError,
    Ranker,
    SparseColumn,
    SpecError,
    TooFewPositives,
    TrainingRefused,
    encode_sparse,
)
from models.zoo import EMBEDDINGS, MODELS, load_model, load_ranker

__all__ = [
    "EMBEDDINGS",
    "MODELS",
    "ConfigError",
    "FeatureSpec",
    "FitReport",
    "Model",
    "ModelError",
    "Ranker",
    "SparseColumn",
    "SpecError",
    "TooFewPositives",
    "TrainingRefused",
    "encode_sparse",
    "load_model",
    "load_ranker",
]
