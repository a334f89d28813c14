"""The page of the gates: what it shows, when it is logged, and what happens when it cannot be."""

from __future__ import annotations

import shutil
import types
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

import models.retry
from feature_store import hours as hr
from feature_store.gates import GateResult, Measure, parse_gates
from feature_store.ledger import FencedOutError
from jobs import validate_events
from jobs.support.gates_page import JudgedHours, gates_page
from jobs.support.settings import load_settings
from tests.jobs.conftest import HOUR, Project
from tests.jobs.usual_hour import hour_of_events

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

BEFORE = hr.add(HOUR, -1)
NOBODY = "http://127.0.0.1:1"
REFUSED: dict[str, Any] = {"changed": 10, "to": {"propensity": 0.0}}


@pytest.fixture
def project(project: Project, migrated: Path) -> Project:
    """A project whose MLflow is an empty database."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    project.configure(gates={"min_history": 1})
    return project


def ingest(project: Project, hour: str = HOUR, **odd: Any) -> None:
    project.write(hour_of_events(hour, **odd), hour)
    assert project.run("ingest_events", "--hour", hour).code == 0


def logged(project: Project) -> list[Run]:
    client = mlflow.MlflowClient(project.tracking_uri)
    experiment = client.get_experiment_by_name(validate_events.EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def page_of(project: Project, run: Run, folder: Path) -> str:
    path = mlflow.MlflowClient(project.tracking_uri).download_artifacts(
        run.info.run_id, "gates.html", str(folder)
    )
    return Path(path).read_text()


def is_validated(project: Project) -> bool | None:
    store = project.store()
    found = store.ledger.completions("events", HOUR, HOUR)[HOUR].validated
    store.close()
    return found


def test_a_range_of_hours_logs_one_page(project: Project, tmp_path: Path) -> None:
    for hour in (BEFORE, HOUR):
        ingest(project, hour)
    result = project.run("validate_events", "--from-hour", BEFORE, "--to-hour", HOUR)
    assert result.code == 0, result.err
    [run] = logged(project)
    assert run.data.tags["data_hour"] == HOUR
    assert run.data.metrics["volume"] == 400
    assert run.data.metrics["click_rate"] == 0.2
    page = page_of(project, run, tmp_path)
    assert f"Gates of {BEFORE} to {HOUR}" in page
    assert "click_rate" in page
    assert page.count("<svg") == 14  # volume, nine rates, four distributions


def test_a_rerun_replaces_its_page_and_another_hour_has_its_own(project: Project) -> None:
    for hour in (BEFORE, HOUR):
        ingest(project, hour)
        assert project.run("validate_events", "--hour", hour).code == 0
    first = {run.info.run_id for run in logged(project)}
    assert project.run("validate_events", "--hour", HOUR).code == 0
    again = {run.info.run_id for run in logged(project)}
    assert (len(first), len(again), len(first & again)) == (2, 2, 1)


def test_a_refused_hour_has_a_page_as_well(project: Project, tmp_path: Path) -> None:
    ingest(project, **REFUSED)
    result = project.run("validate_events", "--hour", HOUR)
    assert result.code == 3
    [run] = logged(project)
    page = page_of(project, run, tmp_path)
    assert "is refused; nobody reads it" in page
    assert '<tr class="fail"><td data-name="level">fail</td>' in page


def test_a_dry_run_logs_nothing(project: Project) -> None:
    ingest(project)
    assert project.run("validate_events", "--hour", HOUR, "--dry-run").code == 0
    assert logged(project) == []


def test_without_mlflow_there_is_no_page(project: Project) -> None:
    project.tracked = False
    ingest(project)
    result = project.run("validate_events", "--hour", HOUR)
    assert (result.code, result.summary["mlflow_run_url"]) == (0, None)
    assert "no page: neither --tracking-uri nor MLFLOW_TRACKING_URI is set" in result.out


@pytest.mark.parametrize(("odd", "code", "status"), [({}, 1, "failed"), (REFUSED, 3, "refused")])
def test_an_unreachable_mlflow_changes_no_verdict(
    project: Project, monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any], code: int, status: str
) -> None:
    """An hour that passed is tried again by the scheduler; one that is refused stays refused."""
    waited: list[float] = []
    monkeypatch.setattr(models.retry, "time", types.SimpleNamespace(sleep=waited.append))
    ingest(project, **odd)
    result = project.run("validate_events", "--hour", HOUR, "--tracking-uri", NOBODY)
    assert (result.code, result.summary["status"]) == (code, status)
    for named in (NOBODY, "5 tries", "MLFLOW_TRACKING_URI"):
        assert named in result.summary["message"]
    assert waited == [1, 2, 4, 8], "retried, and ever slower"
    assert is_validated(project) is (code == 1)
    if code == 3:
        assert "propensity_range" in result.summary["message"]
        assert "--accept" in result.summary["message"]


def test_a_run_that_was_taken_over_logs_nothing(project: Project) -> None:
    ingest(project)
    arguments = validate_events.build_parser().parse_args(project.arguments("--hour", HOUR))
    settings, store = load_settings(arguments), project.store()
    judged = JudgedHours((), {HOUR: []}, {})
    store.ledger.take_fence(validate_events.JOB, [HOUR], "newer")
    with pytest.raises(FencedOutError, match="newer"):
        validate_events._log_page(store, settings, judged, "older")
    assert logged(project) == []
    validate_events._log_page(store, settings, judged, "newer")
    assert len(logged(project)) == 1
    store.close()


def test_the_address_of_a_refused_hours_page_is_on_its_last_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's link comes from there; only a server has addresses."""
    address = "http://mlflow/#/experiments/1/runs/2"
    monkeypatch.setattr("models.registry.Registry.run_url", lambda *_: address)
    ingest(project, **REFUSED)
    result = project.run("validate_events", "--hour", HOUR)
    assert (result.code, result.summary["mlflow_run_url"]) == (3, address)
    assert f"Its page: {address}" in result.summary["message"]


def test_the_page_compares_with_the_day_before_and_escapes_values() -> None:
    drift = {"kind": "drift", "column": "scene", "description": "scenes <of all>"}
    rules = parse_gates({"rules": {"scenes": drift}})
    history = {"scenes": {BEFORE: Measure(None, {"<b>": 50, "feed": 50})}}
    result = GateResult("scenes", HOUR, 0.3, 0.01, "fail", "<b> is odd", '{"<b>": 10, "feed": 90}')
    early = GateResult("scenes", BEFORE, 0.2, 0.01, "warn", "was odd")
    page = gates_page(JudgedHours(rules, {BEFORE: [early], HOUR: [result]}, history))
    assert "<b>" not in page
    for text in ("&lt;b&gt; is odd", "scenes &lt;of all&gt;", "was odd", "1 fail, 1 warn"):
        assert text in page
    assert page.count("<svg") == 1
    assert page.startswith("<!doctype html>")
    assert not any(part in page for part in ("<script", "<link", "src=", "@import", "url(http"))
