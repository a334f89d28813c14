"""Jobs killed in the middle: nothing of them is seen, and a rerun is as good as an undisturbed run.

`make faults` runs them, some minutes on two cores. Here a job is struck where it says what it is
doing; test_random_kills.py does so at any moment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from pyiceberg.expressions import EqualTo

from tests.e2e.stack import (
    EXTRACTED,
    LAST,
    REPOSITORY,
    Running,
    finished,
    requires_data,
    requires_java,
)
from tests.faults.victim import Victim

wanted = pytest.mark.skipif(
    not os.environ.get("RANKMILL_FAULTS"), reason="minutes of killed Spark jobs; run `make faults`"
)
pytestmark = [pytest.mark.shared, pytest.mark.spark, requires_data, requires_java, wanted]

WAYS = ("jvm", "python", "group")
MODEL = "gbdt_faults"
COMPUTED, FITTING = "features as of", "fitting on"

Start = Callable[[list[str]], Victim]


@pytest.fixture
def start(run: Running) -> Iterator[Start]:
    """Starts victims; whatever is left of them is killed in the end."""
    started: list[Victim] = []

    def begin(command: list[str]) -> Victim:
        started.append(Victim(command, run.env))
        return started[-1]

    yield begin
    for victim in started:
        victim.clear()


def extraction(run: Running) -> list[str]:
    return run.submit("extract_features", "--hour", LAST)


def training(run: Running, name: str, way: str = "python") -> list[str]:
    """As Airflow starts it, a plain process; through spark-submit where a JVM is to be killed."""
    arguments = ["--hour", LAST, "--name", name]
    if way == "jvm":
        return run.submit("train_gbdt", *arguments)
    return [sys.executable, str(REPOSITORY / "jobs" / "train_gbdt.py"), *arguments]


def withdraw(run: Running) -> None:
    """Take the extracted features of LAST away, as if they had never been made."""
    for table in EXTRACTED:
        run.store.ledger.forget(table, [LAST])
        if run.store.files(table, [LAST]):  # some views have no key in this log
            run.store.iceberg(table).delete(EqualTo("hour", LAST))


def visible(run: Running) -> dict[str, object]:
    """All that a reader could see of the extraction of LAST."""
    files = {table: run.store.files(table, [LAST]) for table in EXTRACTED}
    return {"hours": run.completions(LAST, EXTRACTED)} | files


@pytest.fixture
def undisturbed(run: Running) -> Iterator[dict[str, tuple[int, str]]]:
    """What the undisturbed run left; the tables hold it again when the test is over."""
    contents = run.contents(LAST, EXTRACTED)
    assert sorted(contents) == sorted(EXTRACTED)
    withdraw(run)
    yield contents
    assert run.contents(LAST, EXTRACTED) == contents


def test_killed_extractions_leave_nothing_and_a_rerun_leaves_the_same(
    run: Running, start: Start, undisturbed: dict[str, tuple[int, str]]
) -> None:
    nothing = visible(run)
    assert nothing == {"hours": {}} | {table: [] for table in EXTRACTED}
    for way in WAYS:
        victim = start(extraction(run))
        victim.wait_for(COMPUTED)
        victim.strike(way)
        assert victim.ended() != 0, way
        assert visible(run) == nothing, way
    finished(extraction(run), run.env)
    assert run.contents(LAST, EXTRACTED) == undisturbed
    for table, (rows, _) in undisturbed.items():
        assert len(run.store.files(table, [LAST])) == min(rows, 1), table


@pytest.mark.usefixtures("undisturbed")
def test_an_extraction_that_was_overtaken_writes_nothing(run: Running, start: Start) -> None:
    nothing = visible(run)
    late = start(extraction(run))
    late.wait_for(COMPUTED)
    late.pause()
    run.store.ledger.take_fence("extract_features", [LAST], "the next try")
    late.resume()
    assert late.ended(90) == 1, late.text()
    assert "was taken over by run 'the next try'" in late.text()
    assert visible(run) == nothing
    finished(extraction(run), run.env)


def test_killed_trainings_register_nothing_and_a_rerun_makes_the_same_model(
    run: Running, start: Start
) -> None:
    for way in WAYS:
        victim = start(training(run, MODEL, way))
        victim.wait_for(FITTING)
        victim.strike(way)
        assert victim.ended() != 0, way
        assert run.registry.versions(MODEL) == [], way
    finished(training(run, MODEL), run.env)
    finished(training(run, MODEL), run.env)
    [version] = run.registry.versions(MODEL)
    [twin] = [v for v in run.registry.versions("gbdt_ranker") if v.tags["run_hour"] == LAST]
    for tag in ("tree_version", "data_hour", "feature_spec_sha"):
        assert version.tags[tag] == twin.tags[tag], tag


def test_a_training_that_was_overtaken_registers_nothing(run: Running, start: Start) -> None:
    name = f"{MODEL}_late"
    late = start(training(run, name))
    late.wait_for(FITTING)
    late.pause()
    run.store.ledger.take_fence(f"train_gbdt:{name}", [LAST], "the next try")
    late.resume()
    assert late.ended(90) == 1, late.text()
    assert "was taken over by run 'the next try'" in late.text()
    assert run.registry.versions(name) == []
