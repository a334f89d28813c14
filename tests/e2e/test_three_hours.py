"""Real hours through real DAG runs: what they leave, what a second run changes, what they know."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from airflow.models.dagrun import DagRun

from feature_store import hours as hr
from feature_store.sources.kuairand import KuaiRandSource
from feature_store.training_set import training_set
from feature_store.views import ATTRIBUTES, VIEWS
from jobs.support import promotions
from models.base import encode_sparse
from models.metrics import gauc
from tests.dags.test_runs import announced, parsed, states, xcom
from tests.e2e.stack import DATA, FIRST, HOURLY, LAST, NEXT, Running, requires_data, requires_java

pytestmark = [
    pytest.mark.shared, pytest.mark.spark, pytest.mark.timeout(1800), requires_data, requires_java,
]  # fmt: skip

NAME = "gbdt_ranker"
CONSUMERS = ("hourly_gbdt", "offline_evaluation")


def features_of(airflow: Path, hour: str) -> DagRun:
    """A run of the feature DAG for ``hour``, as the scheduler would make it."""
    logical_date = hr.start_of(hour) + dt.timedelta(hours=1)
    return parsed(airflow, "hourly_features").test(logical_date=logical_date)


def consumer_of(airflow: Path, dag_id: str, hour: str) -> DagRun:
    return parsed(airflow, dag_id).test(logical_date=None, run_conf={"hour": hour})


@dataclass(frozen=True)
class Done:
    """What a run left in Airflow, read at once: `dag.test()` without a logical date deletes the
    DAG's earlier run without one."""

    states: dict[str, str]
    announced: set[tuple[str, str | None]]
    summaries: dict[str, Any]
    links: dict[str, str]

    @classmethod
    def of(cls, dag_run: DagRun) -> Done:
        """Summaries and links of the tasks that succeeded."""
        ended = states(dag_run)
        good = [task for task, state in ended.items() if state == "success"]
        return cls(
            ended,
            announced(dag_run),
            {task: xcom(dag_run, task, "return_value") for task in good},
            {task: xcom(dag_run, task, "_link_MlflowRunLink") for task in good},
        )


@pytest.fixture(scope="module")
def three_hours(airflow: Path) -> dict[tuple[str, str], Done]:
    """Three hours after the bootstrap through all three DAGs, by DAG and hour."""
    runs = {}
    for hour in NEXT:
        runs["hourly_features", hour] = Done.of(features_of(airflow, hour))
        for dag_id in CONSUMERS:
            runs[dag_id, hour] = Done.of(consumer_of(airflow, dag_id, hour))
    return runs


def test_every_task_of_three_hours_succeeds_and_reports(
    run: Running, three_hours: dict[tuple[str, str], Done]
) -> None:
    assert {key: set(done.states.values()) for key, done in three_hours.items()} == {
        key: {"success"} for key in three_hours
    }
    server = run.env["MLFLOW_TRACKING_URI"]
    for version, hour in enumerate(NEXT, start=2):
        features, model = three_hours["hourly_features", hour], three_hours["hourly_gbdt", hour]
        assert features.announced == {("hour_ready", hour), ("hour_stored", hour)}
        extracted = features.summaries["extract_features"]
        assert (extracted["job"], extracted["status"]) == ("extract_features", "done")
        assert extracted["hours"] == [hour, hour]
        for task in ("train_gbdt", "evaluate", "promote"):
            assert model.summaries[task]["model"] == {"name": NAME, "version": version}
            assert model.links[task].startswith(f"{server}/#/")


@pytest.mark.usefixtures("three_hours")
def test_three_hours_are_complete_and_hold_every_impression(run: Running) -> None:
    source = KuaiRandSource(path=DATA)
    for hour in [LAST, *NEXT]:
        complete = run.completions(hour)
        assert sorted(complete) == sorted(HOURLY)
        assert all(completion.validated for completion in complete.values())
        actions = Counter(run.store.read("events", [hour])["action"].to_pylist())
        assert actions["impression"] > 100
        assert run.store.read("samples", [hour]).num_rows == actions["impression"]
        outcomes = sum(actions[action] for action in source.windows)
        assert run.store.read("outcomes", [hour]).num_rows == outcomes, "every row is attributed"


@pytest.mark.usefixtures("three_hours")
def test_each_hour_has_one_version_judged_on_what_it_has_not_seen(run: Running) -> None:
    versions = run.registry.versions(NAME)
    hours = [LAST, *NEXT]
    assert [version.tags["run_hour"] for version in versions] == hours
    assert [version.tags["data_hour"] for version in versions] == [hr.add(h, -1) for h in hours]
    assert len({version.tags["run_key"] for version in versions}) == len(hours)
    rows = run.store.read("evaluations", hours, where={"evaluation": "hourly"})
    for version, hour in zip(versions, hours, strict=True):
        mine = rows.filter(pc.equal(rows["hour"], hour))
        roles = set(mine["role"].to_pylist())
        assert {"candidate", "popularity"} <= roles
        assert ("champion" in roles) == (hour != LAST), "the first one has nobody to beat"
        candidates = mine.filter(pc.equal(mine["role"], "candidate"))
        assert set(candidates["version"].to_pylist()) == {str(version.version)}
        whole = candidates.filter(pc.equal(candidates["segment"], "all"))
        judged = whole.filter(pc.equal(whole["metric"], "ndcg_at_10"))
        assert sorted(judged["label"].to_pylist()) == ["click", "graded", "long_view"]
        assert all(0 < value <= 1 for value in judged["value"].to_pylist())
        assert all(seen < hour for seen in candidates["data_hour"].to_pylist())


@pytest.mark.usefixtures("three_hours")
def test_decisions_are_logged_and_the_alias_follows_them(run: Running) -> None:
    log = promotions.history(run.store, NAME)
    assert [(row["hour"], row["stage"]) for row in log] == [
        (hour, stage) for hour in [LAST, *NEXT] for stage in ("intent", "done")
    ]
    done = [row for row in log if row["stage"] == "done"]
    assert [row["version"] for row in done] == ["1", "2", "3", "4"]
    assert (done[0]["action"], done[0]["champion"]) == ("promote", "1")
    champion = run.registry.alias(NAME, "champion")
    assert champion is not None
    assert str(champion.version) == done[-1]["champion"]


@pytest.mark.usefixtures("three_hours")
def test_an_hour_run_again_changes_nothing(run: Running, airflow: Path) -> None:
    """LAST was made with 24 other hours in one range; alone it must come out the same."""
    tables, last = run.completions(LAST), NEXT[-1]
    snapshots = {table: run.store.snapshot_id(table) for table in HOURLY}
    versions, log = run.registry.versions(NAME), promotions.history(run.store, NAME)
    assert set(states(features_of(airflow, LAST)).values()) == {"success"}
    assert run.completions(LAST) == tables
    assert {table: run.store.snapshot_id(table) for table in HOURLY} == snapshots
    again = consumer_of(airflow, "hourly_gbdt", last)
    assert set(states(again).values()) == {"success"}
    assert xcom(again, "train_gbdt", "return_value")["status"] == "unchanged"
    assert [v.version for v in run.registry.versions(NAME)] == [v.version for v in versions]
    assert promotions.history(run.store, NAME) == log


def test_what_is_known_of_the_user_alone_ranks_nothing(run: Running) -> None:
    table = training_set(run.store, FIRST, LAST, hr.add(LAST, 1), KuaiRandSource(path=DATA).windows)
    labels, groups = table["label_click"].to_numpy(), table["group_id"]
    scores = {name: table[name].to_numpy() for name in (*VIEWS[0].sample_columns(),
              *ATTRIBUTES[0].dense())}  # fmt: skip
    scores |= {name: encode_sparse(table[name], 64) for name in ATTRIBUTES[0].sparse()}
    for name, score in scores.items():
        known = pc.fill_null(pa.array(score, from_pandas=True), -1)
        assert gauc(labels, known.to_numpy(), groups) == pytest.approx(0.5, abs=1e-12), name
    assert any(len(set(score[:5000].tolist())) > 20 for score in scores.values())
    assert gauc(labels, table["item_ctr_24h"].to_numpy(), groups) > 0.51


class History:
    """Events as plain rows, to count them as slowly and plainly as possible."""

    def __init__(self, run: Running, hours: list[str]) -> None:
        self.categories: dict[str, list[tuple[str, dt.datetime, str | None]]] = {}
        for table, key in (("items", "item_id"), ("rooms", "room_id")):
            columns = [key, "category", "valid_from", "hour"]
            for row in run.store.read(table, hours, columns).to_pylist():
                entry = (row["hour"], row["valid_from"], row["category"])
                self.categories.setdefault(f"{key} {row[key]}", []).append(entry)
        columns = ["user_id", "item_id", "room_id", "action", "event_time", "ingested_at", "hour"]
        self.events: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for event in run.store.read("events", hours, columns).to_pylist():
            event["category"] = self.category(event)
            for key in ("user_id", "item_id", "room_id", "category"):
                if event[key] is not None:
                    place = (event["action"], key, event[key])
                    self.events.setdefault(place, []).append(event)

    def category(self, row: dict[str, Any]) -> str | None:
        """The category of a row's item, else of its room, as known in the row's hour."""
        for key in ("item_id", "room_id"):
            entries = self.categories.get(f"{key} {row[key]}", [])
            known = [entry for entry in entries if entry[0] <= row["hour"]]
            category = max(known, key=lambda entry: entry[:2])[2] if known else None
            if category is not None:
                return category
        return None

    def seen(
        self, action: str, as_of: dt.datetime, hours: int, **keys: str | None
    ) -> list[dt.datetime]:
        """When ``action`` happened, of what arrived in the ``hours`` before ``as_of``.

        Nothing is known of a key that is null.
        """
        if None in keys.values():
            return []
        start, first = as_of - dt.timedelta(hours=hours), next(iter(keys))
        return [
            event["event_time"]
            for event in self.events.get((action, first, str(keys[first])), [])
            if start <= event["ingested_at"] < as_of
            and all(event[key] == value for key, value in keys.items())
        ]


def test_samples_know_only_what_arrived_before_their_group(run: Running) -> None:
    hours = run.store.readable_hours("samples", FIRST, NEXT[-1])  # those of Airflow as well
    history = History(run, hours)
    samples = run.store.read("samples", hours[12:])
    earliest: dict[str, dt.datetime] = {}
    for group, at in zip(
        *(samples[c].to_pylist() for c in ("group_id", "event_time")), strict=True
    ):
        earliest[group] = min(at, earliest.get(group, at))
    counted: Counter[str] = Counter()
    for sample in samples.take(
        list(range(0, samples.num_rows, samples.num_rows // 200))
    ).to_pylist():
        as_of = earliest[sample["group_id"]].replace(minute=0, second=0, microsecond=0)
        assert sample["as_of"] == as_of
        assert sample["category"] == history.category(sample)
        for column, expected in naive_counts(history, sample, as_of).items():
            assert sample[column] == pytest.approx(expected, rel=1e-6), (
                column,
                sample["sample_id"],
            )
            counted[column] += expected > 0
    assert min(counted.values()) > 5, f"too few to tell anything: {counted}"


def naive_counts(history: History, sample: dict[str, Any], as_of: dt.datetime) -> dict[str, float]:
    """Some of a sample's features, by counting events one by one."""
    seen: Callable[..., list[dt.datetime]] = history.seen
    user, item, room = ({key: sample[key]} for key in ("user_id", "item_id", "room_id"))
    category = {"category": sample["category"]}
    clicked, shown = (len(seen(a, as_of, 24, **item)) for a in ("click", "impression"))
    counts: dict[str, float] = {
        "item_click_24h": clicked,
        "item_impression_24h": shown,
        "item_ctr_24h": (clicked + 1) / (shown + 10),
        "item_impression_1h": len(seen("impression", as_of, 1, **item)),
        "user_impression_1h": len(seen("impression", as_of, 1, **user)),
        "user_click_24h": len(seen("click", as_of, 24, **user)),
        "room_long_view_3d": len(seen("long_view", as_of, 72, **room)),
        "category_click_1h": len(seen("click", as_of, 1, **category)),
        "user_category_click_7d": len(seen("click", as_of, 168, **user, **category)),
    }
    if last := seen("click", as_of, 168, **user):
        counts["user_hours_since_click"] = (as_of - max(last)).total_seconds() / 3600
    return counts
