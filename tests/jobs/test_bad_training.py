"""Training that must not register anything, through the real job on a store of its own."""

from __future__ import annotations

import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models.retry
from feature_store import hours as hr
from models.registry import Registry
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import HOURS, NAME, QUICK, fill, fill_clicks, samples

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with the samples of HOURS; tests bring the clicks."""
    folder = tmp_path_factory.mktemp("day")
    fill(Project(folder), "samples", samples, HOURS)
    return folder


@pytest.fixture
def trained(project: Project, day: Path, migrated: Path) -> Project:
    """The project with that store and an empty registry; every fourth impression is clicked."""
    shutil.copy(migrated, day / "mlflow.db")
    project = Project(day, project.capture)
    project.configure(train={"gbdt": QUICK})
    fill_clicks(project, lambda number: number % 4 == 0)
    return project


def versions(project: Project) -> list[int]:
    return [v.version for v in Registry(project.tracking_uri, retries=0).versions(NAME)]


def test_a_model_is_trained_although_an_hour_is_empty(trained: Project) -> None:
    """The control of the tests below, too: the same store without their fault registers."""
    result = trained.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (0, "done"), result.err
    assert result.summary["model"] == {"name": NAME, "version": 1}
    again = trained.run("train_gbdt", "--hour", HOUR)
    assert (again.code, again.summary["status"]) == (0, "unchanged")
    assert again.summary["model"] == {"name": NAME, "version": 1}
    assert versions(trained) == [1]


FAULTS: dict[str, tuple[Callable[[int], bool], str]] = {
    "no positive": (lambda _: False, "task 'click' has too few positives: 0 of"),
    "no negative": (lambda _: True, "task 'click' has one class only: all of"),
    "too few positives": (lambda number: number == 0, "task 'click' has too few positives: 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_too_little_to_learn_from_registers_nothing(trained: Project, fault: str) -> None:
    clicked, said = FAULTS[fault]
    fill_clicks(trained, clicked)
    trained.configure(train={"gbdt": {**QUICK, "min_positives": 50}})
    before = trained.state()
    result = trained.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (1, "failed")
    assert said in result.summary["message"]
    assert result.summary["message"] in result.err
    assert result.summary["model"] is None
    assert versions(trained) == []
    assert trained.state() == before


def test_too_few_hours_are_skipped(trained: Project) -> None:
    short = hr.add(HOUR, -1)  # of its 24 hours the first is not there
    for job in ("train_gbdt", "evaluate", "promote"):
        result = trained.run(job, "--hour", short)
        assert (result.code, result.summary["status"]) == (0, "skipped"), result.err
        assert f"23 complete hours before {short}; 24 are needed" in result.summary["message"]
        assert result.summary["model"] is None
    assert versions(trained) == []


def test_an_unreachable_mlflow_is_named(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(models.retry, "time", types.SimpleNamespace(sleep=waited.append))
    before = trained.state()
    result = trained.run("train_gbdt", "--hour", HOUR, "--tracking-uri", "http://127.0.0.1:1")
    assert (result.code, result.summary["status"]) == (1, "failed")
    for named in ("http://127.0.0.1:1", "5 tries", "MLFLOW_TRACKING_URI"):
        assert named in result.summary["message"]
    assert waited == [1, 2, 4, 8], "retried, and ever slower"
    assert trained.state() == before


def test_a_task_that_the_source_does_not_declare(trained: Project) -> None:
    options = {"path": str(trained.data), "windows": {"click": 600}}
    trained.configure(
        source={"name": "parquet", "options": options},
        train={"gbdt": {**QUICK, "tasks": ["conversion"]}},
    )
    result = trained.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert "declares no action for ['label_conversion']" in result.summary["message"]
    assert "['click']" in result.summary["message"]
    assert versions(trained) == []


@pytest.mark.parametrize(
    ("train", "said"), [({"gbdt": {**QUICK, "leaves": 3}}, "leaves"), ({"span": 24}, "span")]
)
def test_a_bad_training_configuration(project: Project, train: Any, said: str) -> None:
    project.configure(train=train)
    result = project.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert said in result.summary["message"]
    assert not (project.folder / "mlflow.db").exists()


def test_a_range_of_hours_is_no_training_run(project: Project) -> None:
    result = project.run("train_gbdt", "--from-hour", HOURS[0], "--to-hour", HOUR)
    assert result.code == 2
    assert "one --hour, got 25 hours" in result.summary["message"]
