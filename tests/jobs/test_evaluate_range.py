"""Any models over any hours: who serves which hour, what is pooled, Spark against one process."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store import hours as hr
from feature_store.tables import HourWriter, Staged, Writer
from jobs.support.serving import asked
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import EMPTY_HOUR, HOURS, NAME, QUICK, ROWS, fill, fill_clicks, samples

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

LATER = [HOUR, hr.add(HOUR, 1), hr.add(HOUR, 2)]
EVERY = (*HOURS, *LATER)
AFTER = hr.add(HOUR, 3)


def clicked(number: int) -> bool:
    """One of every four, by no rule that a feature tells."""
    return number % 4 == number // 4 * 5 % 7 % 4


def configure(project: Project, **evaluation: Any) -> None:
    judging = {"labels": ["click"], "resamples": 50, "grades": {"click": 1}, **evaluation}
    project.configure(
        train={"gbdt": QUICK}, evaluation=judging, promotion={"min_groups": 1}
    )  # fmt: skip


@pytest.fixture
def days(project: Project, migrated: Path) -> Project:
    """A day of samples and three hours after it, and a version fitted at each of the first two."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    fill(project, "samples", samples, list(EVERY))
    fill_clicks(project, clicked, list(EVERY))
    configure(project)
    for hour in LATER[:2]:
        assert project.run("train_gbdt", "--hour", hour).code == 0
    return project


def compare(days: Project, *arguments: str, models: str = NAME) -> Any:
    ends = ("--from-hour", LATER[0], "--to-hour", LATER[-1])
    return days.run("evaluate", *ends, "--models", models, *arguments)


def kept(days: Project) -> list[dict[str, Any]]:
    store = days.store()
    rows = store.read("evaluations", [LATER[0]], where={"evaluation": "range"}).to_pylist()
    store.close()
    return rows


def value(rows: list[dict[str, Any]], **where: Any) -> dict[str, Any]:
    [found] = [row for row in rows if all(row[name] == wanted for name, wanted in where.items())]
    return found


def test_every_hour_is_served_by_a_version_that_had_not_seen_it(
    days: Project, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    result = compare(days, "--page", str(page), models=f"{NAME},{NAME}/1")
    assert result.code == 0, result.err
    rows = kept(days)
    newest = {
        row["judged_hour"]: row["version"]
        for row in rows
        if (row["role"], row["segment"], row["metric"]) == (NAME, "hour", "auc")
    }
    assert newest == dict(zip(LATER, ["1", "2", "2"], strict=True))
    whole = value(rows, role=NAME, segment="all", metric="ndcg_at_10", label="click")
    assert whole["version"] == "1-2"
    assert whole["groups"] == 3 * ROWS // 4
    by_hour = [
        row["value"] for row in rows
        if (row["role"], row["segment"], row["metric"], row["label"])
        == (NAME, "hour", "ndcg_at_10", "click")
    ]  # fmt: skip
    assert 0.4 < whole["value"] < 0.99
    assert whole["value"] == pytest.approx(np.mean(by_hour), abs=1e-12)
    assert value(rows, role="random", segment="all", metric="auc", label="click")["value"] == 0.5
    at_three = [clicked(number) for number in range(2, ROWS, 4)]
    third = value(rows, role=NAME, segment="position=3", metric="observed_rate", label="click")
    assert third["value"] == pytest.approx(np.mean(at_three))
    apart = value(
        rows, role=NAME, segment="all", metric=f"ndcg_at_10_minus_{NAME}/1", label="click"
    )
    assert apart["low"] <= apart["value"] <= apart["high"]
    graded = value(rows, role=NAME, segment="all", metric="ndcg_at_10", label="graded")
    assert graded["value"] == pytest.approx(whole["value"]), "one grade has the gains of clicks"
    host_free = [row["metric"] for row in rows if row["role"] == NAME and row["label"] == "click"]
    assert {"target_gini", "target_coverage", "target_popularity_lift"} <= set(host_free)
    assert "host_gini" not in host_free, "no row has a room"
    assert value(rows, role="random", segment="all", metric="target_coverage")["value"] == 1.0
    text = page.read_text()
    for shown in (f"{NAME}/1", "permuted features", "feature columns read", LATER[-1]):
        assert shown in text
    assert result.summary["mlflow_run_url"] is None or "runs" in result.summary["mlflow_run_url"]


def test_hours_without_rows_are_judged_as_such(days: Project) -> None:
    nothing = days.run("evaluate", "--hour", EMPTY_HOUR, "--models", f"{NAME}/1")
    assert nothing.code == 3, "version 1 has seen it"
    store = days.store()
    store.ledger.take_fence("build_samples", [AFTER], "test")
    staged = Staged("samples")
    HourWriter(store, "samples", AFTER).close(staged)
    store.commit(staged, Writer("build_samples", "test"))
    store.close()
    alone = days.run("evaluate", "--hour", AFTER, "--models", NAME)
    assert (alone.code, alone.summary["rows_in"]) == (0, 0), alone.err
    both = days.run("evaluate", "--from-hour", LATER[1], "--to-hour", AFTER, "--models", NAME)
    assert (both.code, both.summary["rows_in"]) == (0, 2 * ROWS), both.err
    assert f"{AFTER}: 0 rows judged, 3 of 3 hours" in both.out


def test_a_report_shows_the_hours_before_it(days: Project, tmp_path: Path) -> None:
    ends = ("--from-hour", LATER[1], "--to-hour", LATER[1])
    assert days.run("evaluate", *ends, "--models", NAME).code == 0
    page = tmp_path / "report.html"
    later = ("--from-hour", LATER[2], "--to-hour", LATER[2], "--page", str(page))
    assert days.run("evaluate", *later, "--models", NAME).code == 0
    [embedded] = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>',
                            page.read_text(), re.DOTALL)  # fmt: skip
    assert LATER[1] in embedded
    assert hr.add(LATER[0], -1) not in embedded


def test_hours_that_a_model_cannot_serve_are_left_out_for_all(days: Project) -> None:
    result = compare(days, models=f"{NAME},{NAME}/2")
    assert result.code == 3
    assert "has seen" in result.summary["message"]
    days.run("evaluate", "--hour", LATER[0])
    promoted = days.run("promote", "--hour", LATER[0])
    assert promoted.summary["status"] == "promoted", promoted.err
    result = compare(days, models=f"{NAME}@champion,{NAME}/1")
    assert result.code == 0, result.err
    assert f"{NAME}@champion has no version before 1 of 3 hours" in result.out
    assert result.summary["rows_in"] == 2 * ROWS
    nobody = compare(days, models="mmoe_ranker")
    assert nobody.code == 3
    assert "no hour" in nobody.summary["message"]


@pytest.mark.parametrize("models", ["", "a b", f"{NAME}@best", f"{NAME},{NAME}"])
def test_models_of_another_form_are_refused(models: str) -> None:
    with pytest.raises(ValueError, match=r"NAME/3|twice"):
        asked(models)


def test_grades_of_a_label_that_is_none_are_refused(project: Project) -> None:
    configure(project, grades={"stay": 1})
    result = compare(project)
    assert result.code == 2
    assert "evaluation.grades names ['stay']" in result.summary["message"]
    configure(project, grades={"click": 0})
    assert "whole numbers from 1 to 30" in compare(project).summary["message"]


@pytest.mark.parametrize("lag", ["-1", "1.5", "soon"])
def test_features_of_later_hours_are_refused(
    project: Project, capsys: pytest.CaptureFixture[str], lag: str
) -> None:
    with pytest.raises(SystemExit):
        compare(project, f"--feature-lag={lag}")
    assert "give 0 or more" in capsys.readouterr().err


def test_a_cut_inside_the_hours_is_refused(project: Project) -> None:
    result = compare(project, "--cut", LATER[-1])
    assert result.code == 2
    assert "name 2026-11-11T08 or later" in result.summary["message"]


@pytest.mark.spark
def test_sparks_tasks_find_what_one_process_finds(days: Project) -> None:
    assert compare(days).code == 0
    alone = kept(days)
    configure(days, spark_rows=0)
    ends = ("--from-hour", LATER[0], "--to-hour", LATER[-1])
    result = days.spawn("evaluate", *ends, "--models", NAME)
    assert result.code == 0, result.err
    assert re.search(r"3 hours, 120 rows, in \d+ tasks of Spark", result.out)
    assert sorted(map(repr, kept(days))) == sorted(map(repr, alone))
