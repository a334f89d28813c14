"""Removing versions and their files, on a real tracking store: by halves, and in order."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from models.registry import Registry, RegistryError, Version
from models.removal import Leftover
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAME = "gbdt_ranker"
HOUR = "2026-11-11T05"


def files(folder: Path) -> set[str]:
    """The models that have files, by id."""
    return {path.parts[-3] for path in folder.rglob("artifacts/model.txt")}


def numbers(registry: Registry) -> list[int]:
    return [version.version for version in registry.versions(NAME)]


def finish(registry: Registry, version: Version) -> None:
    assert registry.remove(version)
    assert registry.clear(Leftover(version.model_id, version.run_id))


def test_a_version_goes_with_its_files_and_the_run_stays(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = (small_version(registry, NAME, HOUR, n) for n in range(2))
    assert files(tmp_path) == {first.model_id, second.model_id}
    finish(registry, first)
    assert numbers(registry) == [2]
    assert files(tmp_path) == {second.model_id}
    assert registry.left_over(NAME) == []
    client = mlflow.MlflowClient(registry.tracking_uri)
    run = client.get_run(first.run_id)
    assert (run.info.lifecycle_stage, run.data.metrics) == ("active", {"ndcg": 0.5})
    listed = client.search_logged_models([run.info.experiment_id])
    assert [model.model_id for model in listed] == [second.model_id]
    finish(registry, first)  # once more is without effect
    assert numbers(registry) == [2]


def test_a_run_is_forgotten_once_no_version_is_of_it(registry: Registry, tmp_path: Path) -> None:
    first, second = (small_version(registry, NAME, HOUR, n) for n in range(2))
    registry.log_evaluation(first, {}, artefacts={"page.html": "text"})
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    assert registry.runs_before(NAME, soon) == [first.run_id, second.run_id]
    assert registry.runs_before(NAME, soon - dt.timedelta(days=1)) == []
    assert registry.runs_before("nobody", soon) == []
    assert registry.runs_before(NAME, soon, first.tags["run_key"]) == [first.run_id]
    assert not registry.forget_run(first.run_id)
    finish(registry, first)
    assert [path.name for path in tmp_path.rglob("*.html")] == ["page.html"]
    assert registry.forget_run(first.run_id)
    assert list(tmp_path.rglob("*.html")) == []
    assert registry.runs_before(NAME, soon) == [second.run_id]
    assert registry.forget_run(first.run_id), "once more is without effect"


def test_what_an_alias_points_to_stays_whole(registry: Registry, tmp_path: Path) -> None:
    version = small_version(registry, NAME, HOUR)
    registry.set_alias(NAME, "champion", 1)
    assert version.aliases == (), "known from before the alias"
    assert not registry.remove(version)
    assert registry.get(NAME, 1).aliases == ("champion",)
    assert files(tmp_path) == {version.model_id}
    assert registry.left_over(NAME) == []
    assert not registry.clear(Leftover(version.model_id, version.run_id)), "the version needs them"
    assert files(tmp_path) == {version.model_id}


STEPS = (
    "mlflow.MlflowClient.delete_model_version",
    "Registry._files_at",
    "mlflow.MlflowClient.delete_logged_model",
)
"""Killed before each of these: marked; without the version; without the files."""


@pytest.mark.parametrize("step", STEPS)
def test_killed_on_the_way_it_is_finished_by_the_next(
    registry: Registry, tmp_path: Path, step: str
) -> None:
    versions = [small_version(registry, NAME, HOUR, n) for n in range(2)]
    code = (
        "import os, signal, sys, mlflow\n"
        "from models.registry import Registry\n"
        "from models.removal import Leftover\n"
        f"{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "registry = Registry(sys.argv[1], retries=0)\n"
        f"version = registry.versions('{NAME}')[0]\n"
        "registry.remove(version)\n"
        "registry.clear(Leftover(version.model_id, version.run_id))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, registry.tracking_uri],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert numbers(registry) == ([1, 2] if step == STEPS[0] else [2])
    left = registry.left_over(NAME)
    assert left == [Leftover(versions[0].model_id, versions[0].run_id)]
    assert registry.clear(left[0]) is (step != STEPS[0]), "files of a version are never cleared"
    finish(registry, versions[0])
    assert numbers(registry) == [2]
    assert files(tmp_path) == {versions[1].model_id}
    assert registry.left_over(NAME) == []


def test_a_copy_under_another_name_keeps_the_files(registry: Registry, tmp_path: Path) -> None:
    version = small_version(registry, NAME, HOUR)

    def copy(client: Any) -> Any:
        return client.copy_model_version(f"models:/{NAME}/1", "staging")

    registry._call("copy", copy)
    left = Leftover(version.model_id, version.run_id)
    assert registry.remove(version)
    assert not registry.clear(left)
    assert files(tmp_path) == {version.model_id}
    registry._delete_version(registry.versions("staging")[0])
    assert registry.left_over(NAME) == [left], "still known, and goes with the copy"
    assert registry.clear(left)
    assert files(tmp_path) == set()


def test_nothing_is_left_over_of_a_name_that_nobody_has(registry: Registry) -> None:
    assert registry.left_over("nobody") == []
    client = mlflow.MlflowClient(registry.tracking_uri)
    assert client.get_experiment_by_name("nobody") is None


def test_ten_thousand_versions_are_read_page_by_page_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_version(registry, NAME, HOUR)
    many = 10_000
    with sqlite3.connect(registry.tracking_uri.removeprefix("sqlite:///")) as database:
        for table, number in (("model_versions", "version"), ("model_version_tags", "version")):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(f"n.{number}" if name == number else name for name in names)
            database.execute(
                "WITH RECURSIVE n(version) AS "  # noqa: S608 - names of columns
                f"(SELECT 2 UNION ALL SELECT version + 1 FROM n WHERE version < {many}) "
                f"INSERT INTO {table} SELECT {chosen} FROM {table} t, n WHERE t.{number} = 1"
            )
    database.close()
    registry.set_alias(NAME, "champion", 7)
    asked: list[Any] = []
    search = mlflow.MlflowClient.search_model_versions

    def counted(*given: Any, **named: Any) -> Any:
        asked.append(given)
        return search(*given, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "search_model_versions", counted)
    found = registry.versions(NAME)
    assert [version.version for version in found] == list(range(1, many + 1))
    assert len(asked) == many / 1000
    assert [version.version for version in found if version.aliases] == [7]
    assert all(version.tags["data_hour"] == HOUR for version in found)


def test_an_unreachable_server_is_named() -> None:
    registry = Registry("http://127.0.0.1:1", retries=0)
    version = Version(NAME, 1, "run", {}, (), "", "m-1")
    for call in (lambda: registry.remove(version), lambda: registry.left_over(NAME),
                 lambda: registry.clear(Leftover("m-1", "run"))):  # fmt: skip
        with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:1 did not"):
            call()
