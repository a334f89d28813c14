"""What a version's page shows of the trees: contributions, importances by hour, reliability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

from feature_store import hours as hr
from jobs.support.version_plots import earlier_shares, importance_drift
from models import FitReport
from models.importance_drift import IMPORTANCES_FILE, shares_text
from models.registry import Registry, Version
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import HOURS, NAME, QUICK, fill, fill_clicks, samples
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture
def registry(project: Project, migrated: Path) -> Registry:
    shutil.copy(migrated, project.folder / "mlflow.db")
    return Registry(project.tracking_uri, retries=0)


def version_of(registry: Registry, back: int, text: str | None) -> Version:
    """A version of the hour ``back`` hours before HOUR, with ``text`` as its importances."""
    hour = hr.add(HOUR, -back)
    number = len(registry.versions(NAME))
    version = small_version(registry, NAME, hr.add(hour, -1), number)
    registry._set_tag(version, "run_hour", hour)
    if text is not None:
        registry._upload(version.run_id, "plots", {IMPORTANCES_FILE: text})
    return version


def report_of(**gains: dict[str, float]) -> FitReport:
    return FitReport({}, {}, gains, {}, {}, {}, 0.0)


def only(a: float, task: str = "click") -> str:
    return shares_text({task: {"a": a, "b": 1 - a}})


def test_an_hour_is_compared_with_the_newest_version_before_it(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    version_of(registry, 24, only(1.0))
    version_of(registry, 2, only(0.9))
    version_of(registry, 2, only(0.5))  # trained again: it takes the place of the one before
    for back, text in ((25, only(0.1)), (0, only(0.2)), (-1, only(0.3))):
        version_of(registry, back, text)  # too old, this very hour, and later ones
    drift = importance_drift("train_gbdt", registry, NAME, HOUR, report_of(
        click={"a": 1.0, "b": 3.0}, follow={"a": 1.0},
    ))  # fmt: skip
    assert drift.metrics == {"importance_drift_click": pytest.approx(0.25)}
    said = capsys.readouterr()
    said_all = said.out + said.err
    assert f"click: importances moved by 0.2500 since the model of {hr.add(HOUR, -2)}" in said_all
    assert "follow: no earlier importances" in said_all
    lines = drift.plots["feature_importance_by_hour"].axes[0].get_lines()
    assert {line.get_label(): line.get_ydata().tolist() for line in lines} == {
        "a": [1.0, 0.5, 0.25], "b": [0.0, 0.5, 0.75],
    }  # fmt: skip
    assert json.loads(drift.plots[IMPORTANCES_FILE])["gain_shares"]["click"] == {
        "a": 0.25, "b": 0.75,
    }  # fmt: skip


def test_versions_without_importances_are_named_and_left_out(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    version_of(registry, 3, None)
    version_of(registry, 2, only(0.5))
    version_of(registry, 1, "[]")
    small_version(registry, NAME, HOURS[0], 9)  # without an hour of its own
    found = earlier_shares("train_gbdt", registry, NAME, HOUR)
    assert found == {hr.add(HOUR, -2): {"click": {"a": 0.5, "b": 0.5}}}
    said = capsys.readouterr()
    said_all = said.out + said.err
    assert f"version 1, {hr.add(HOUR, -3)}, left out: it has no {IMPORTANCES_FILE}" in said_all
    assert f"version 3, {hr.add(HOUR, -1)}, left out: {IMPORTANCES_FILE} holds no" in said_all


def test_hours_are_trained_judged_and_compared(project: Project, registry: Registry) -> None:
    after = hr.add(HOUR, 1)
    hours = [*HOURS, HOUR, after]
    fill(project, "samples", samples, hours)
    fill_clicks(project, lambda number: number % 4 == 0, hours)
    more = {"negative_share": 0.5, "min_positives": 10}
    project.configure(train={"gbdt": {**QUICK, **more}}, evaluation={"labels": ["click"]})
    for job, hour in (("train_gbdt", HOUR), ("evaluate", HOUR), ("train_gbdt", after)):
        result = project.run(job, "--hour", hour)
        assert (result.code, result.summary["status"]) == (0, "done"), result.out + result.err
    first, second = registry.versions(NAME)
    client = mlflow.MlflowClient(registry.tracking_uri)

    def kept(version: Version, folder: str) -> set[str]:
        return {Path(f.path).name for f in client.list_artifacts(version.run_id, folder)}

    standard = {"feature_contributions.png", "reliability.png", IMPORTANCES_FILE}
    assert standard <= kept(first, "plots")
    assert "feature_importance_by_hour.png" not in kept(first, "plots")
    assert standard | {"feature_importance_by_hour.png"} <= kept(second, "plots")
    assert kept(first, "evaluation") == {
        f"heldout-{HOUR}.html", f"heldout-{HOUR}-reliability.png",
    }  # fmt: skip

    def numbers(version: Version) -> dict[str, Any]:
        return client.get_run(version.run_id).data.metrics

    assert "importance_drift_click" not in numbers(first)
    assert 0 <= numbers(second)["importance_drift_click"] < 1
    assert "heldout_expected_calibration_error_click" in numbers(first)
    assert registry.load(NAME, 1).model.config_dict()["negative_share"] == 0.5
