"""The trees' training job end to end: what it registers, judges and goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from models.registry import Registry
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import HOURS, NAME, QUICK, fill, fill_clicks, samples

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NEXT = hr.add(HOUR, 1)


@pytest.fixture
def days(project: Project, migrated: Path) -> Project:
    """Samples up to the end of NEXT, every fourth impression clicked, and an empty registry."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    hours = [*HOURS, HOUR, NEXT]
    fill(project, "samples", samples, hours)
    fill_clicks(project, lambda number: number % 4 == 0, hours)
    return project


def configure(project: Project, **gbdt: Any) -> None:
    project.configure(train={"gbdt": {**QUICK, **gbdt}}, evaluation={"labels": ["click"]})


def run(project: Project, job: str, hour: str, status: str) -> dict[str, Any]:
    result = project.run(job, "--hour", hour)
    assert (result.code, result.summary["status"]) == (0, status), result.out + result.err
    return {**result.summary, "said": result.err + result.out}


def registry(project: Project) -> Registry:
    return Registry(project.tracking_uri, retries=0)


def test_a_ranking_objective_is_registered_and_judged_as_scores(days: Project) -> None:
    configure(days, objective="lambdarank", debias="position")
    run(days, "train_gbdt", HOUR, "done")
    loaded = registry(days).load(NAME, 1)
    assert loaded.model.tasks == ("relevance",)
    assert [column.name for column in loaded.spec.training_only] == ["position"]
    assert loaded.version.tags["run_hour"] == HOUR
    shown = {path.stem for path in days.folder.rglob("plots/*")}
    assert {"learning_curve", "feature_importance"} <= shown
    assert "reliability" not in shown
    judged = run(days, "evaluate", HOUR, "done")
    assert judged["details"]["candidate_click"] == pytest.approx(1.0)
    store = days.store()
    rows = store.read("evaluations", [HOUR])
    store.close()
    metrics = rows.filter(pc.equal(rows["role"], "candidate"))["metric"].to_pylist()
    assert "ndcg_at_10" in metrics
    assert "log_loss" not in metrics


def test_probabilities_are_judged_as_such(days: Project) -> None:
    """The control of the test above."""
    configure(days)
    run(days, "train_gbdt", HOUR, "done")
    assert "reliability" in {path.stem for path in days.folder.rglob("plots/*")}
    run(days, "evaluate", HOUR, "done")
    store = days.store()
    rows = store.read("evaluations", [HOUR])
    store.close()
    assert "log_loss" in rows.filter(pc.equal(rows["role"], "candidate"))["metric"].to_pylist()


def test_weights_read_labels_beside_the_tasks(days: Project) -> None:
    configure(days, sample_weights={"click": {"conversion": 10, "stay": {"log": 0.5}}})
    run(days, "train_gbdt", HOUR, "done")
    loaded = registry(days).load(NAME, 1)
    assert loaded.spec.labels == ("label_click", "label_conversion", "label_stay")
    assert loaded.model.probabilities == ()
    options = {"path": str(days.data), "windows": {"click": 600}}
    days.configure(
        source={"name": "parquet", "options": options},
        train={"gbdt": {**QUICK, "sample_weights": {"click": {"conversion": 10}}}},
    )
    result = days.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert "declares no action for ['label_conversion']" in result.summary["message"]
