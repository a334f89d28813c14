"""Jobs killed in the middle: nothing of them is seen, and a rerun is as good as an undisturbed run.

`make faults` runs them, some minutes on two cores. RANKMILL_FAULT_TRIES=N adds N kills of every
kind at moments spread over the whole run.
"""

from __future__ import annotations

import os
import random
import sys
import time
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

TRIES = int(os.environ.get("RANKMILL_FAULT_TRIES", "0"))
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


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not TRIES, reason="long; set RANKMILL_FAULT_TRIES=N to run it")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("job", ["extract_features", "train_gbdt"])
def test_kills_at_any_moment(run: Running, start: Start, job: str, way: str) -> None:
    contents = run.contents(LAST, EXTRACTED)
    rng = random.Random(f"{job}|{way}")
    for attempt in range(TRIES):
        name = f"{MODEL}_{way}_{attempt}"
        if job == "extract_features":
            withdraw(run)
        command = extraction(run) if job == "extract_features" else training(run, name, way)
        victim = start(command)
        victim.wait_for(f"[{job}]" if job == "extract_features" else FITTING)
        time.sleep(rng.uniform(0, 12 if job == "extract_features" else 4))
        if victim.process.poll() is None:
            victim.strike(way)
        victim.ended()
        if job == "extract_features":
            seen = run.contents(LAST, EXTRACTED)
            assert seen.items() <= contents.items(), "a whole table or nothing of it"
        finished(command, run.env)
        assert run.contents(LAST, EXTRACTED) == contents
        if job == "train_gbdt":
            assert len(run.registry.versions(name)) == 1
