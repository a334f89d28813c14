"""Small tables with a known answer, and a tracking store that is migrated only once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models import FeatureSpec, SparseColumn
from models.gbdt import GBDTConfig, GBDTRanker
from models.registry import Registry

# Spinning OpenMP threads make tiny boosters slow where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SPEC = FeatureSpec(
    dense=("x", "noise"),
    sparse=(SparseColumn("kind", 16),),
    labels=("label_click", "label_follow"),
)
CONFIG = GBDTConfig(
    tasks=("click", "follow"),
    weights={"click": 1.0, "follow": 0.5},
    rounds=20,
    early_stopping_rounds=5,
    learning_rate=0.2,
    min_data_in_leaf=10,
    threads=1,
)


def make_table(rows: int, seed: int, immature: bool = True) -> pa.Table:
    """Clicks of known probability ``truth``, made of ``x`` and one ``kind``; half of the follow
    labels are null."""
    rng = np.random.default_rng(seed)
    x, kind = rng.normal(size=rows), rng.integers(0, 6, rows)
    logit = 1.5 * x + 2.0 * (kind == 3) - 1.0
    truth = 1 / (1 + np.exp(-logit))
    click = (rng.random(rows) < truth).astype(np.uint8)
    follow = (rng.random(rows) < 1 / (1 + np.exp(-x))).astype(np.float32)
    hidden = rng.random(rows) < 0.5 if immature else np.zeros(rows, dtype=bool)
    return pa.table(
        {
            "noise": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
            "kind": pa.array([f"kind-{code}" for code in kind], mask=rng.random(rows) < 0.1),
            "x": x,
            "truth": truth,
            "label_click": click,
            "label_follow": pa.array(follow, mask=hidden),
        }
    )


@pytest.fixture(scope="session")
def train() -> pa.Table:
    return make_table(4000, seed=1)


@pytest.fixture(scope="session")
def valid() -> pa.Table:
    return make_table(1500, seed=2)


@pytest.fixture(scope="session")
def fitted(train: pa.Table, valid: pa.Table) -> GBDTRanker:
    ranker = GBDTRanker(CONFIG, SPEC)
    ranker.fit(train, valid)
    return ranker


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking database: MLflow's migrations take seconds, a copy takes none."""
    folder = tmp_path_factory.mktemp("migrated")
    Registry(f"sqlite:///{folder}/mlflow.db").versions("nothing")
    return folder / "mlflow.db"


@pytest.fixture
def registry(migrated: Path, tmp_path: Path) -> Registry:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", retries=0)
