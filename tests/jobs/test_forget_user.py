"""Users forgotten on a store that the real jobs made: nothing of them is left, nothing of anybody
else is gone, and later hours go on."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from feature_store.schemas import TABLES
from feature_store.tiles import day_content
from feature_store.tombstones import Tombstones
from feature_store.views import VIEWS
from jobs.support.forgotten_models import FORGOTTEN_TAG
from jobs.support.settings import Settings
from models.metapath2vec import Metapath2Vec
from models.registry import Registry
from tests.feature_store.people import completed, content, theirs, without
from tests.jobs import people
from tests.jobs.conftest import Project, Result
from tests.jobs.people import DAY, GONE, HOURS, LAST, NEXT, OTHER
from tests.session import uses_spark

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def forget(project: Project, *users: str, code: int = 0, dry: bool = False) -> Result:
    named = [text for user in users for text in ("--user", user)]
    result = project.run(
        "forget_user", *named, "--reason", "request 1", *(["--dry-run"] if dry else [])
    )
    assert result.code == code, result.err
    assert not any(user in result.out + result.err for user in users), "ids are not for logs"
    return result


def lived(project: Project, settings: Settings, spark: SparkSession) -> None:
    """An hour more than a day, with everything that is made of them."""
    people.write_log(project)
    people.ingest(project, HOURS[0], LAST)
    people.derive(spark, project, settings, HOURS)
    people.embed(spark, project, settings)
    people.train(project)
    cached = settings.scratch() / "checkpoints" / "0f" / "train"
    cached.mkdir(parents=True)
    (cached / "sparse.bin").write_bytes(b"rows")


def everywhere(project: Project) -> list[str]:
    return [
        found
        for folder in ("warehouse", "artifacts", "scratch")
        for found in people.traces(project.folder / folder, GONE)
    ]


def expected(project: Project) -> dict[str, list[str]]:
    """The store's rows without the user's, told from the log."""
    mine = [row for row in people.log_of(HOURS) if row["user_id"] == GONE]
    ids = {row["event_id"] for row in mine}
    groups = {f"{row['ingested_at']:%Y-%m-%dT%H}|r|{row['request_id']}" for row in mine}

    def own(table: str, row: dict[str, Any]) -> bool:
        if table == "outcomes":
            return row["event_id"] in ids
        return row["group_id"] in groups if table == "evaluation_groups" else theirs(table, row)

    store = project.store()
    found = without(store, own)
    store.close()
    return found


def check_completions(project: Project) -> None:
    store = project.store()
    for table in store.existing():
        hours = store.read_all(table)["hour"].to_pylist()
        for hour, of in completed(store, table).items():
            assert of.rows == hours.count(hour), (table, hour)
    for view in VIEWS:
        hashes = {h: c.content_hash for h, c in completed(store, view.counts_table).items()}
        [of_day] = completed(store, view.day_counts_table).values()
        assert of_day.content_hash == day_content({h: hashes[h] for h in DAY}), view.name
    store.close()


def check_models(project: Project, rows: dict[str, int]) -> None:
    registry = Registry(project.tracking_uri, retries=0)
    [trees], [vectors] = (registry.versions(name) for name in ("gbdt_ranker", "metapath2vec"))
    for version in (trees, vectors):
        [(since, count)] = json.loads(version.tags[FORGOTTEN_TAG]).items()
        assert dt.datetime.fromisoformat(since).tzinfo is not None
        assert count == rows[version.name]
        assert "revising" not in version.tags
    loaded = registry.load_model("metapath2vec", vectors.version)
    assert isinstance(loaded.model, Metapath2Vec)
    nodes = loaded.model.nodes["node_id"].to_pylist()
    assert OTHER in nodes and GONE not in nodes
    assert loaded.handoff["nodes"] == loaded.model.counts()
    assert registry.load("gbdt_ranker", trees.version)


@pytest.mark.spark
@uses_spark[1]
@uses_spark[2]
def test_nothing_of_a_user_is_left_and_the_next_hours_go_on(
    project: Project, migrated: Path, spark: SparkSession
) -> None:
    shutil.copy(migrated, project.folder / "mlflow.db")
    settings = people.configure(project)
    lived(project, settings, spark)
    store = project.store()
    before, after = content(store), expected(project)
    tagged = {name: sorted(store.iceberg(name).refs()) for name in ("samples", "edges")}
    assert all(len(labels) == 2 for labels in tagged.values())
    store.close()

    result = forget(project, GONE)
    lost = {name: len(rows) - len(after[name]) for name, rows in before.items()}
    details = result.summary["details"]
    assert details["rows"] == {name: count for name, count in lost.items() if count}
    assert set(details["rows"]) == {
        name for name, spec in TABLES.items() if spec.users and name in before and before[name]
    }
    assert details["versions"] == {"gbdt_ranker": [1], "metapath2vec": [1]}
    assert details["versions_rewritten"] == {"metapath2vec": [1]}
    assert details["tags_removed"] > 0 and details["bytes_removed"] > 0

    assert everywhere(project) == []
    assert content(project.store()) == after
    check_completions(project)
    read = ("samples", "outcomes")
    trained = sum(  # on the hours before the last
        json.loads(text)["hour"] < LAST and text not in after[name]
        for name in read for text in before[name]
    )  # fmt: skip
    check_models(project, {"gbdt_ranker": trained, "metapath2vec": lost["edges"]})
    for name in tagged:
        assert list(project.store().iceberg(name).refs()) == ["main"]
    assert not (settings.scratch() / "checkpoints").exists()
    again = forget(project, GONE)
    assert again.summary["message"] == "nothing of 1 user is stored"

    check_an_old_hour_again(project, settings, spark)
    people.ingest(project, NEXT, NEXT)
    people.derive(spark, project, settings, [NEXT])
    trained = project.run("train_gbdt", "--hour", NEXT)
    assert trained.code == 0 and trained.summary["model"]["version"] == 2, trained.err
    assert everywhere(project) == []


def check_an_old_hour_again(project: Project, settings: Settings, spark: SparkSession) -> None:
    """Ingested once more from the raw log it is as it was left, and so is what is made of it."""
    there, rows = project.store(), content(project.store())
    known = {name: completed(there, name) for name in there.existing()}
    summary = people.ingest(project, HOURS[5], HOURS[5])
    gone = [r for r in people.log_of(HOURS[5:6]) if r["user_id"] == GONE]
    assert summary["rejected"]["forgotten"] == len(gone) > 0
    assert summary["rows_in"] == summary["rows_out"] + sum(summary["rejected"].values())
    people.derive(spark, project, settings, HOURS[5:6])
    now = content(project.store())
    for name, spec in TABLES.items():
        if spec.users and name in rows:
            assert now[name] == rows[name], name
    for view in (view for view in VIEWS if "user_id" in view.keys):
        for name in (view.counts_table, view.features_table):
            hashes = [
                {hour: of.content_hash for hour, of in of_table.items()}
                for of_table in (known[name], completed(there, name))
            ]
            assert hashes[0] == hashes[1], f"{name} is made anew as it was left"
    assert everywhere(project) == []
    there.close()


@pytest.fixture
def empty(project: Project, migrated: Path) -> Project:
    """An ingested hour and an empty registry."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    people.configure(project)
    people.write_log(project, HOURS[:2])
    people.ingest(project, HOURS[0], HOURS[0])
    return project


def test_an_unknown_user_is_remembered_all_the_same(empty: Project) -> None:
    state = empty.state()
    result = forget(empty, "person-new")
    assert result.summary["message"] == "nothing of 1 user is stored"
    assert result.summary["details"]["rows"] == {}
    assert empty.state() == state
    store = empty.store()
    tombstones = Tombstones(store.ledger)
    assert tombstones.hashes() == {tombstones.hashed("person-new")}
    store.close()
    assert b"person-new" not in (empty.folder / "catalog.db").read_bytes()
    empty.write([{**row, "user_id": "person-new"} for row in people.log_of(HOURS[:1])], name="late")
    summary = people.ingest(empty, HOURS[0], HOURS[0])
    assert summary["rejected"]["forgotten"] == len(people.log_of(HOURS[:1]))
    assert not list(people.traces(empty.folder / "warehouse", "person-new"))


def test_everybody_of_a_file_and_an_hour_of_forgotten_people(empty: Project) -> None:
    listed = empty.folder / "ids.txt"
    listed.write_text("\n".join(people.PEOPLE) + "\n\n")
    result = empty.run("forget_user", "--users", str(listed), "--reason", "all of them")
    assert result.code == 0, result.err
    assert result.summary["details"]["users"] == len(people.PEOPLE)
    summary = people.ingest(empty, HOURS[0], HOURS[1])
    assert summary["rows_out"] == 0
    assert summary["rejected"]["forgotten"] == summary["rows_in"] > 0
    state = empty.state()
    assert not [name for name in state if name.endswith(" rows") and name != "gate_results rows"]


def test_a_dry_run_remembers_nobody(empty: Project) -> None:
    state = empty.state()
    result = forget(empty, GONE, dry=True)
    assert result.summary["status"] == "dry-run"
    assert result.summary["details"]["rows"]["events"] > 0
    assert result.summary["message"].startswith("would be removed: 1 user: ")
    assert empty.state() == state
    store = empty.store()
    assert Tombstones(store.ledger).hashes() == frozenset()
    store.close()


def test_a_job_that_ran_meanwhile_is_refused(
    empty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the rows before they went."""
    from jobs import ingest_events

    real = ingest_events.stage_hours

    def then_somebody_is_forgotten(*given: Any) -> Any:
        staged = real(*given)
        monkeypatch.undo()
        assert forget_quietly(empty) == 0
        return staged

    monkeypatch.setattr(ingest_events, "stage_hours", then_somebody_is_forgotten)
    refused = empty.run("ingest_events", "--hour", HOURS[1])
    assert refused.code == 1 and "taken over by run" in refused.summary["message"]
    assert not list(people.traces(empty.folder / "warehouse", GONE))
    assert empty.run("ingest_events", "--hour", HOURS[1]).code == 0
    assert not list(people.traces(empty.folder / "warehouse", GONE))


def forget_quietly(project: Project) -> int:
    from jobs.forget_user import main

    return main(project.arguments("--user", GONE, "--reason", "request 2"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--reason", "why"], "name the users by --user"),
        (["--reason", " ", "--user", "x"], "--reason is empty"),
        (["--reason", "x wants it", "--user", "x"], "--reason names one of the users"),
        (["--reason", "why", "--users", "nowhere.txt"], "nowhere.txt cannot be read"),
    ],
)
def test_bad_arguments(empty: Project, given: list[str], said: str) -> None:
    result = empty.run("forget_user", *given)
    assert result.code == 2 and said in result.summary["message"]


def test_a_reason_is_needed(empty: Project) -> None:
    with pytest.raises(SystemExit) as ended:
        empty.run("forget_user", "--user", "x")
    assert ended.value.code == 2
