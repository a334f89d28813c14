"""Rankers, the metrics that judge them, and the registry that keeps them.

``MODELS`` is the zoo: a new model is one file and one line here.
"""

from __future__ import annotations

from pathlib import Path

from models.base import (
    CONFIG_FILE,
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
    read_json,
)
from models.gbdt import GBDTConfig, GBDTRanker

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

MODELS: dict[str, type[Ranker]] = {"gbdt": GBDTRanker}


def load_ranker(folder: Path) -> Ranker:
    """The ranker saved in ``folder``, whichever family it is of.

    Raises:
        ModelError: when the folder holds no model, or one of a family that is not in ``MODELS``.
    """
    family = str(read_json(folder / CONFIG_FILE).get("family"))
    if family not in MODELS:
        raise ModelError(
            f"{folder} holds a model of family {family!r}; known are {', '.join(sorted(MODELS))}"
        )
    return MODELS[family].load(folder)
