"""Users taken out of registered files: vectors, examples, vocabularies; and what a kill leaves."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.support.embedding_page import NEIGHBOURS
from jobs.support.forgotten_models import ForgottenModels, forget_files
from models.base import CONFIG_FILE, write_json
from models.deep_files import forget_texts
from models.handoff import EXAMPLE_FILE
from models.metapath2vec import Metapath2Vec
from models.registry import Registry, RegistryError
from tests.jobs import people
from tests.jobs.conftest import Project
from tests.jobs.test_embed_graph import DAY, EMBEDDING, put_edges
from tests.models.graphs import planted
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAME = "metapath2vec"
GONE, ITEM = "u7", "i7"


@pytest.fixture
def embedded(project: Project, migrated: Path) -> Project:
    """A registered version with a page that names users, as those of earlier releases did."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    project.configure(embedding=EMBEDDING)
    edges = planted(classes=3, users=60, items=40, seed=1).edges
    # An item that is called as the user is.
    same = [GONE if name == ITEM else name for name in edges["target_id"].to_pylist()]
    place = edges.schema.get_field_index("target_id")
    put_edges(project.store(), DAY, edges.set_column(place, "target_id", pa.array(same)))
    assert project.run("embed_graph", "--date", DAY).code == 0
    version = registry(project).get(NAME, 1)
    registry(project).replace_text(version, f"plots/{NEIGHBOURS}", f"<td>user {GONE}</td>")
    return project


def registry(project: Project) -> Registry:
    return Registry(project.tracking_uri, retries=0)


def models(project: Project, *users: str, dry: bool = False) -> ForgottenModels:
    now = dt.datetime.now(dt.UTC)
    return ForgottenModels(project.store(), registry(project), users, now, lambda _: None, dry)


def users_of(project: Project) -> Sequence[str]:
    model = registry(project).load_model(NAME, 1).model
    assert isinstance(model, Metapath2Vec)
    return [row["node_id"] for row in model.nodes.to_pylist() if row["node_type"] == "user"]


def test_a_vector_goes_and_the_version_loads(embedded: Project) -> None:
    before, items = users_of(embedded), registry(embedded).load_model(NAME, 1).model.counts()
    assert GONE in before
    assert models(embedded, GONE, dry=True).scrub() == 1
    assert list(users_of(embedded)) == before, "a dry run changes nothing"
    assert models(embedded, GONE).scrub() == 1
    assert list(users_of(embedded)) == [user for user in before if user != GONE]
    loaded = registry(embedded).load_model(NAME, 1)
    assert loaded.handoff["nodes"] == {**items, "user": items["user"] - 1}
    assert GONE in loaded.model.nodes["node_id"].to_pylist(), "the item of that name stays"
    page = registry(embedded).run_text(registry(embedded).get(NAME, 1), f"plots/{NEIGHBOURS}")
    assert page is not None and "somebody who was forgotten" in page and GONE not in page
    run_id = registry(embedded).get(NAME, 1).run_id
    handoff = registry(embedded).run_text(registry(embedded).get(NAME, 1), "handoff.json")
    assert handoff is not None and json.loads(handoff) == dict(loaded.handoff), run_id
    assert models(embedded, GONE).scrub() == 0


@pytest.mark.parametrize("files", [0, 1])
def test_killed_between_two_files_the_same_again_finishes_it(
    embedded: Project, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """The version cannot be loaded in between; whoever altered a file is told from it."""
    real = mlflow.MlflowClient.log_model_artifacts

    def some(client: Any, model_id: str, folder: str) -> None:
        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file())[files:]:
            path.unlink()
        real(client, model_id, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(mlflow.MlflowClient, "log_model_artifacts", some)
        with pytest.raises(KeyboardInterrupt):
            models(embedded, GONE).scrub()
    if files:
        with pytest.raises(RegistryError, match="altered"):
            registry(embedded).load_model(NAME, 1)
    assert models(embedded, GONE).scrub() == 1
    assert GONE not in users_of(embedded)
    assert "revising" not in registry(embedded).get(NAME, 1).tags


def test_a_version_that_cannot_be_looked_into_is_told_at_the_end(embedded: Project) -> None:
    small_version(registry(embedded), "gbdt_ranker", "2026-11-10T05")
    result = embedded.run("forget_user", "--user", GONE, "--reason", "request 1")
    assert result.code == 1
    assert "everything else is forgotten" in result.summary["message"]
    assert "gbdt_ranker version 1" in result.summary["message"]
    assert GONE not in users_of(embedded)
    [altered] = embedded.folder.rglob("embeddings.parquet")
    altered.write_bytes(altered.read_bytes() + b"x")
    again = embedded.run("forget_user", "--user", "u8", "--reason", "request 2")
    assert again.code == 1 and "embeddings.parquet" in again.err + again.out


def ranker(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A version of a deep ranker, as far as it may name users."""
    kept = folder / "artifacts" / "ranker"
    kept.mkdir(parents=True)
    write_json(kept / CONFIG_FILE, {"family": "mmoe"})
    example = pa.Table.from_pylist(rows)
    pq.write_table(example, kept / EXAMPLE_FILE)
    split = example.to_pandas().to_dict(orient="split")
    split = json.loads(json.dumps(split, default=list))
    (folder / "input_example.json").write_text(json.dumps(split))
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": split}))
    texts = [("user_id", GONE), ("user_id", "u8"), ("item_id", GONE)]
    table = pa.table({"table": [t for t, _ in texts], "text": [t for _, t in texts]})
    pq.write_table(table, kept / "vocabularies.parquet")
    return kept


def test_examples_and_vocabularies_of_rankers(tmp_path: Path) -> None:
    rows = [
        {"user_id": user, "item_id": f"i{n}", "ctr": n / 8, "user_items_item_id": [GONE, "i1"]}
        for n, user in enumerate((GONE, "u8", GONE))
    ]
    kept = ranker(tmp_path, rows)
    forget_files(tmp_path, kept, [GONE])
    assert pq.read_table(kept / EXAMPLE_FILE).to_pylist() == rows[1:2], "items stay as they are"
    shown = json.loads((tmp_path / "input_example.json").read_text())
    assert [row[0] for row in shown["data"]] == ["u8"] and shown["index"] == [0]
    served = json.loads((tmp_path / "serving_input_example.json").read_text())
    assert served["dataframe_split"]["data"] == shown["data"]
    known = pq.read_table(kept / "vocabularies.parquet")["text"].to_pylist()
    assert known == ["(forgotten) 0", "u8", GONE], "numbers stay, and so do items"
    assert forget_texts(kept, "user_id", [GONE]) == 0


def test_an_example_of_nobody_else_says_nothing(tmp_path: Path) -> None:
    kept = ranker(tmp_path, [{"user_id": GONE, "ctr": 0.5, "seen": ["i1"]}])
    forget_files(tmp_path, kept, [GONE])
    assert pq.read_table(kept / EXAMPLE_FILE).to_pylist() == [
        {"user_id": None, "ctr": None, "seen": []}
    ]
    assert json.loads((tmp_path / "input_example.json").read_text())["data"] == [[None, None, []]]


def test_pages_of_new_versions_name_no_users(project: Project, migrated: Path) -> None:
    shutil.copy(migrated, project.folder / "mlflow.db")
    project.configure(embedding=EMBEDDING)
    put_edges(project.store(), DAY, planted(classes=3, users=60, items=40, seed=1).edges)
    assert project.run("embed_graph", "--date", DAY).code == 0
    page = registry(project).run_text(registry(project).get(NAME, 1), f"plots/{NEIGHBOURS}")
    assert page is not None and ">item i" in page and ">user u" not in page
    assert not list(people.traces(project.folder / "artifacts" / NAME / "plots", "u7"))
