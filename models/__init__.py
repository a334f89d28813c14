"""Rankers, the metrics that judge them, and the registry that keeps them.

``MODELS`` is the zoo: a new model is one file and one line in ``zoo.py``.
"""

from __future__ import annotations

from models.base import (
    ConfigError,
    FeatureSpec,
    FitReport,
    ModelError,
    Ranker,
    SparseColumn,
    SpecError,
    TooFewPositives,
    TrainingRefused,
    encode_sparse,
)
from models.gbdt import GBDTConfig, GBDTRanker
from models.zoo import MODELS, load_ranker

__all__ = [
    "MODELS",
    "ConfigError",
    "FeatureSpec",
    "FitReport",
    "GBDTConfig",
    "GBDTRanker",
    "ModelError",
    "Ranker",
    "SparseColumn",
    "SpecError",
    "TooFewPositives",
    "TrainingRefused",
    "encode_sparse",
    "load_ranker",
]
