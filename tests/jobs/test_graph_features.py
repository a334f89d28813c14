"""Yesterday's graph in rankers: vectors and similarities through the real jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import mlflow.pyfunc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from feature_store.embedding_views import EMBEDDING_VIEWS, SIMILARITIES, SPACE
from feature_store.schemas import NODE_EMBEDDINGS, optional
from feature_store.tables import HourWriter, Staged, Writer
from feature_store.training_set import rebuild
from models.base import PretrainedColumn
from models.registry import Registry
from tests.jobs.conftest import Project
from tests.jobs.deep_days import BEFORE, DATE, FIRST, ITEMS, ROOMS, ROWS, USERS, fill_days
from tests.jobs.test_pretrain import MMOE

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

VIEWS = [view.name for view in EMBEDDING_VIEWS]
COSINES = [one.name for one in SIMILARITIES]
TWO_BEFORE, BEFORE_LAST = hr.add(BEFORE[0], -1), BEFORE[-1]
WIDTH = 4
MISSING = "i6"
"""An item that no graph has."""


def embed(project: Project, hour: str, space: str) -> None:
    """Vectors of every node but one, as embed_graph leaves them."""
    rng = np.random.default_rng(int(hour[8:10]))
    counts = {"user": USERS, "item": ITEMS, "room": ROOMS}
    rows = [
        {"node_type": kind, "node_id": f"{kind[0]}{n}", SPACE: space, "last_seen": hour[:10],
         "visits": 1, "vector": rng.normal(size=WIDTH).tolist(), "hour": hour}
        for kind, count in counts.items() for n in range(count) if f"{kind[0]}{n}" != MISSING
    ]  # fmt: skip
    store = project.store()
    store.ledger.take_fence("embed_graph", [hour], "test")
    staged, part = Staged("node_embeddings"), HourWriter(store, "node_embeddings", hour)
    part.write(pa.Table.from_pylist(rows, optional(NODE_EMBEDDINGS)))
    part.close(staged)
    store.commit(staged, Writer("embed_graph", "test"))
    store.close()


@pytest.fixture(scope="module")
def embedded_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded_days")
    project = Project(folder)
    fill_days(project)
    embed(project, TWO_BEFORE, "first")
    embed(project, BEFORE_LAST, "first")
    return folder


@pytest.fixture
def days(project: Project, embedded_days: Path, migrated: Path) -> Project:
    shutil.copy(migrated, embedded_days / "mlflow.db")
    project = Project(embedded_days, project.capture)
    project.configure(
        train={"feature_service": "graph_ranking",
               "gbdt": {"tasks": ["click"], "rounds": 5, "min_positives": 10}},
        pretrain={"feature_service": "deep_graph_ranking", "models": {"mmoe": MMOE},
                  "user_buckets": 64, "item_buckets": 64, "room_buckets": 16},
        evaluation={"labels": ["click"]},
    )  # fmt: skip
    return project


def test_trees_read_similarities_and_the_very_rows_come_back(days: Project) -> None:
    result = days.run("train_gbdt", "--hour", FIRST)
    assert (result.code, result.summary["status"]) == (0, "done"), result.err
    missing = result.summary["details"]["missing"]
    assert missing == {
        "user_item_similarity": pytest.approx(1 / ITEMS, abs=0.02),
        "user_room_similarity": pytest.approx(1 / 5, abs=0.02),
    }
    registry, store = Registry(days.tracking_uri), days.store()
    [version] = registry.versions("gbdt_ranker")
    spec = registry.load("gbdt_ranker", 1).spec
    assert set(COSINES) <= set(spec.dense) and not spec.pretrained
    body = registry.handoff(version)
    assert body["iceberg_snapshots"]["node_embeddings"] == store.snapshot_id("node_embeddings")
    origin = body["training_set"]["recipe"]["lineage"]
    assert origin["embedding_hours"] == [TWO_BEFORE]
    logged = mlflow.MlflowClient(days.tracking_uri).get_run(version.run_id).data.metrics
    assert logged[f"missing_{COSINES[0]}"] == pytest.approx(missing[COSINES[0]], abs=1e-4)
    table = rebuild(store, body)
    known = table.filter(pc.not_equal(table["item_id"], MISSING))
    assert known[COSINES[0]].null_count == 0
    assert pc.all(pc.less_equal(pc.abs(known[COSINES[0]]), 1.00001)).as_py()
    assert days.run("evaluate", "--hour", FIRST).code == 0


def test_other_vectors_are_another_run(days: Project) -> None:
    """The content of the day before belongs to the run key; the day of the samples does not."""
    first = days.run("train_gbdt", "--hour", FIRST, "--dry-run")
    sha = first.summary["details"]["training_set_sha"]
    embed(days, BEFORE_LAST, "second")
    again = days.run("train_gbdt", "--hour", FIRST, "--dry-run")
    assert again.summary["details"]["training_set_sha"] == sha
    embed(days, BEFORE_LAST, "first")


def test_vectors_that_arrive_after_the_fit_do_not_hide_its_version(project: Project) -> None:
    """Shortly after midnight the day before is embedded while the hour's model is in the making."""
    fill_days(project)
    embed(project, TWO_BEFORE, "first")
    project.configure(
        train={"feature_service": "graph_ranking",
               "gbdt": {"tasks": ["click"], "rounds": 5, "min_positives": 10}},
        evaluation={"labels": ["click"]},
    )  # fmt: skip
    hour = hr.add(FIRST, 1)
    assert project.run("train_gbdt", "--hour", hour).code == 0
    embed(project, BEFORE_LAST, "first")
    judged = project.run("evaluate", "--hour", hour)
    assert (judged.code, judged.summary["model"]["version"]) == (0, 1), judged.err
    promoted = project.run("promote", "--hour", hour)
    assert (promoted.code, promoted.summary["status"]) == (0, "promoted"), promoted.err
    # Trained again, the hour has another version, and that is the one which is judged.
    assert project.run("train_gbdt", "--hour", hour).summary["model"]["version"] == 2
    assert project.run("evaluate", "--hour", hour).summary["model"]["version"] == 2


def test_a_deep_ranker_reads_vectors_of_one_space(
    days: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = days.run("pretrain_mmoe", "--date", DATE)
    assert (result.code, result.summary["status"]) == (0, "done"), result.err
    registry = Registry(days.tracking_uri)
    loaded = registry.load("mmoe_ranker", 1)
    assert loaded.spec.pretrained == tuple(PretrainedColumn(v, WIDTH, "first") for v in VIEWS)
    assert set(COSINES) <= set(loaded.spec.dense) and loaded.spec.columns[-1] == SPACE
    missing = result.summary["details"]["missing"]
    assert missing["user_vector"] == 0.0 and missing["room_vector"] == pytest.approx(0.2, abs=0.02)
    body = registry.handoff(registry.versions("mmoe_ranker")[0])
    rows = rebuild(days.store(), body).slice(0, ROWS)
    model = loaded.model
    mine = model.score(rows)
    # A vector that changes moves the score; in another space none is read, whatever it says.
    flipped = _with(rows, "user_vector", pc.multiply(_flat(rows["user_vector"]), -3.0))
    assert not np.allclose(mine, model.score(flipped))
    elsewhere = rows.set_column(
        rows.column_names.index(SPACE), SPACE, pa.array(["second"] * len(rows))
    )
    other = flipped.set_column(rows.column_names.index(SPACE), SPACE, elsewhere[SPACE])
    assert np.array_equal(model.score(elsewhere), model.score(other))
    assert days.run("evaluate", "--name", "mmoe_ranker", "--date", DATE).code == 0
    # The pyfunc takes rows in which some have no vector.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", days.tracking_uri)
    served = mlflow.pyfunc.load_model("models:/mmoe_ranker/1")
    frame = rows.select(list(loaded.spec.columns)).to_pandas()
    assert frame["room_vector"].isna().any() and frame["room_vector"].notna().any()
    assert np.allclose(served.predict(frame)["score"], mine, atol=1e-6)


def test_a_new_space_starts_from_scratch_and_says_which_columns_differ(days: Project) -> None:
    assert days.run("pretrain_mmoe", "--date", DATE).code == 0
    assert days.run("promote", "--name", "mmoe_ranker", "--date", DATE).code == 0
    following = "2026-11-12"
    embed(days, BEFORE_LAST, "second")
    result = days.run("pretrain_mmoe", "--date", following)
    assert result.code == 0, result.err
    assert "from scratch: the champion, version 1, does not fit" in result.out
    assert "different: user_vector, item_vector, room_vector" in result.out
    spec = Registry(days.tracking_uri).load("mmoe_ranker", 2).spec
    assert {column.space for column in spec.pretrained} == {"second"}
    embed(days, BEFORE_LAST, "first")


def test_without_any_embedded_day_no_vectors_are_read(project: Project) -> None:
    fill_days(project, BEFORE)
    project.configure(pretrain={"feature_service": "deep_graph_ranking", "models": {"mmoe": MMOE}})
    result = project.run("pretrain_mmoe", "--date", DATE, "--dry-run")
    assert result.code == 0, result.err
    assert result.summary["details"]["missing"] == dict.fromkeys(COSINES, 1.0)


def _flat(lists: pa.ChunkedArray) -> pa.Array:
    return lists.combine_chunks().flatten()


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    lists = rows[name].combine_chunks()
    assert not lists.null_count
    sized = pa.FixedSizeListArray.from_arrays(values.cast(pa.float32()), WIDTH)
    return rows.set_column(rows.column_names.index(name), name, sized.cast(lists.type))
