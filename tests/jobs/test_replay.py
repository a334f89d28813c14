"""Replays on a real store: what serves when, what it was fitted on, and what drift does to it."""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from feature_store.damage import DamagedFileError
from feature_store.training_set import MovingSet, Recipe, build, content_digest, lineage
from jobs.replay import Replayed, build_parser, replay
from jobs.support import promotions
from jobs.support.cadences import BASELINE, CADENCES, cadences
from jobs.support.contenders import unregistered
from jobs.support.replaying import Replay, Track
from jobs.support.settings import EvaluationSettings, load_settings
from jobs.support.summary import RefusedError
from models import FeatureSpec
from models.gbdt import GBDTConfig
from models.registry import Registry
from tests.jobs.conftest import Project
from tests.jobs.gbdt_day import EMPTY_HOUR, NAME, QUICK, ROWS, clicks, fill, samples

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

DAY = "2026-11-11T00"  # business days are UTC here
FIRST, LAST = DAY, hr.add(DAY, 4)
HOURS = hr.hour_range(hr.add(DAY, -24), LAST)
TURN = hr.add(DAY, 1)
"""From here on what was clicked is not, and features say so."""
LATE = 12
"""The impression of every hour whose click arrives in the next."""


def turned(hour: str) -> pa.Table:
    """Samples that know, by one column, on which side of the turn they are; the last group is
    shown so late in the hour that its labels are open at the end of it."""
    rows = samples(hour)
    side = pa.array(np.full(rows.num_rows, float(hour >= TURN), np.float32))
    rows = rows.set_column(rows.schema.get_field_index("item_ctr_15d"), "item_ctr_15d", side)
    minutes = [55 if number >= ROWS - 4 else 0 for number in range(rows.num_rows)]
    shown = [hr.start_of(hour) + dt.timedelta(minutes=late) for late in minutes]
    place = rows.schema.get_field_index("event_time")
    return rows.set_column(
        place, rows.schema.field(place), pa.array(shown).cast(rows.field(place).type)
    )


def turned_clicks(hour: str) -> pa.Table:
    """Of the hour's own impressions, and one of the hour before that is heard of late."""
    wanted = 3 if hour >= TURN else 0
    mine = clicks(hour, lambda number: number % 4 == wanted and number != LATE)
    late = clicks(hr.add(hour, -1), lambda number: number == LATE)
    at = pa.array([hr.start_of(hour)] * late.num_rows).cast(late["ingested_at"].type)
    late = late.set_column(late.schema.get_field_index("ingested_at"), "ingested_at", at)
    late = late.set_column(late.schema.get_field_index("hour"), "hour", pa.array([hour]))
    return pa.concat_tables([mine, late.cast(mine.schema)])


def filled(folder: Path, hours: list[str]) -> Project:
    made = Project(folder)
    fill(made, "samples", turned, hours)
    fill(made, "outcomes", turned_clicks, hours)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """The folder of a store with HOURS, and an empty registry."""
    made = filled(tmp_path_factory.mktemp("replayed"), HOURS)
    shutil.copy(migrated, made.folder / "mlflow.db")
    return made.folder


@pytest.fixture
def days(project: Project, folder: Path) -> Project:
    made = Project(folder, project.capture)
    configure(made)
    return made


def configure(project: Project, **gbdt: Any) -> None:
    project.configure(train={"gbdt": {**QUICK, **gbdt}}, evaluation={"labels": ["click"]})


def run(project: Project, *given: str, hours: tuple[str, str] = (FIRST, LAST)) -> dict[str, Any]:
    result = project.run("replay", "--from-hour", hours[0], "--to-hour", hours[1], *given)
    assert result.code == 0, result.out + result.err
    return {**result.summary, "said": result.out}


def test_drift_makes_hourly_beat_daily(days: Project) -> None:
    """By groups and hours; every cadence fits when it is due, and nobody registers anything."""
    before = days.state()
    versions = Registry(days.tracking_uri, retries=0).versions(NAME)
    page = days.folder / "replay.html"
    fits = {"daily": 1, "hourly": 5, "every_3h": 2, "hourly_continue": 5, "daily_refit": 5}
    found = run(days, "--cadences", ",".join(reversed(fits)), "--page", str(page))
    assert (found["status"], found["hours"]) == ("done", [FIRST, LAST])
    of = found["details"]["click"]
    assert list(of) == list(fits)
    assert {name: line["fits"] for name, line in of.items()} == fits
    # Four hours of nine groups whose labels are known; of DAY one more has no click that is.
    assert {(line["groups"], line["hours"]) for line in of.values()} == {(35, 4)}
    assert of["daily"]["minus_daily_interval"] == [0, 0]
    for name in ("hourly", "hourly_continue", "every_3h"):
        low, high = of[name]["minus_daily_interval"]
        assert 0 < low <= of[name]["minus_daily"] <= high, name
        # The turn itself surprises everyone; the first model that has seen it is not.
        assert of[name]["hours_better"] == 2, name
    assert of["hourly"]["normalised_entropy"] < of["daily"]["normalised_entropy"]
    assert of["hourly"]["auc"] > of["daily"]["auc"]
    assert of["daily"]["auc_minus_daily_interval"] == [0, 0]
    low, high = of["hourly"]["auc_minus_daily_interval"]
    assert 0 <= low < of["hourly"]["auc_minus_daily"] <= high
    assert of["hourly"]["log_loss_minus_daily"] < 0
    assert of["hourly"]["ndcg_at_10"] - of["daily"]["ndcg_at_10"] == pytest.approx(
        of["hourly"]["minus_daily"]
    )
    assert f"{EMPTY_HOUR}: no mature group" in found["said"]
    assert page.read_text().count("<svg") == 3
    assert days.state() == before
    assert Registry(days.tracking_uri, retries=0).versions(NAME) == versions


def runs(project: Project) -> list[str]:
    """Ids of the replays that MLflow shows."""
    client = mlflow.MlflowClient(project.tracking_uri)
    experiment = client.get_experiment_by_name("replay")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return [run.info.run_id for run in found]


def test_a_rerun_replaces_its_page_and_a_dry_run_logs_none(days: Project) -> None:
    short = (LAST, LAST)
    dry = run(days, "--dry-run", "--cadences", "hourly", hours=short)
    assert (dry["status"], dry["mlflow_run_url"]) == ("dry-run", None)
    there = runs(days)
    first = run(days, "--cadences", "hourly", hours=short)
    again = run(days, "--cadences", "hourly", hours=short)
    assert again["message"] == first["message"]
    assert len(runs(days)) == len(there) + 1


def test_too_few_hours_are_skipped_and_bad_arguments_said(days: Project) -> None:
    early = hr.add(FIRST, -1)  # the daily model that serves it is fitted a day before FIRST
    found = run(days, hours=(early, early))
    assert found["status"] == "skipped"
    moment = hr.add(FIRST, -24)
    assert f"0 complete hours before {moment}, when daily fits its first" in found["message"]
    later = hr.add(LAST, 1)
    missing = days.run("replay", "--hour", later)
    assert (missing.code, missing.summary["status"]) == (3, "refused")
    assert "build_samples.py --from-hour" in missing.summary["message"]
    configure(days, objective="lambdarank", debias="position")
    refused = days.run("replay", "--hour", LAST, "--cadences", "hourly_refit")
    assert (refused.code, refused.summary["status"]) == (2, "bad arguments")
    assert "way is 'refit', but debias is 'position'" in refused.summary["message"]


def test_cadences_are_named_once_and_in_order() -> None:
    assert [one.name for one in cadences("hourly_refit, hourly")] == [
        BASELINE, "hourly", "hourly_refit",
    ]  # fmt: skip
    with pytest.raises(argparse.ArgumentTypeError, match=r"no cadences \['weekly'\] are declared"):
        cadences("hourly,weekly")


@pytest.mark.parametrize(
    ("name", "hour", "after", "moments"),
    [
        ("daily", "2026-11-11T05", None, ["2026-11-10T16"]),
        ("daily", "2026-11-11T15", "2026-11-10T16", []),
        ("daily", "2026-11-11T17", "2026-11-10T16", ["2026-11-11T16"]),
        ("hourly", "2026-11-11T05", "2026-11-11T03", ["2026-11-11T05"]),
        ("every_6h", "2026-11-11T05", None, ["2026-11-11T04"]),
        ("every_6h", "2026-11-11T09", "2026-11-11T04", []),
        ("daily_refit", "2026-11-11T05", None, ["2026-11-10T16", "2026-11-11T05"]),
        ("daily_refit", "2026-11-11T17", "2026-11-11T15", ["2026-11-11T16", "2026-11-11T17"]),
    ],
)
def test_moments_count_from_the_start_of_the_business_day(
    name: str, hour: str, after: str | None, moments: list[str]
) -> None:
    """Which is at 16 UTC in Shanghai."""
    assert CADENCES[name].moments(hour, "Asia/Shanghai", after) == moments


def test_a_day_of_25_hours_has_one_daily_model() -> None:
    zone, day = "Europe/Berlin", hr.date_hours("2026-10-25", "Europe/Berlin")
    assert len(day) == 25
    assert CADENCES["daily"].moments(day[-1], zone, day[0]) == []


def moving(days: Project, *similarities: str) -> tuple[MovingSet, Recipe]:
    """All hours of the store."""
    store = days.store()
    origin = lineage(store, HOURS[0], LAST, hr.add(LAST, 1))
    recipe = Recipe(hr.add(LAST, 1), "ranking", ("item_ctr_24h", "item_ctr_15d"),
                    {"click": 600}, origin, ("click",), similarities=similarities)  # fmt: skip
    return MovingSet(store, recipe), recipe


def test_a_moving_set_is_what_a_training_set_of_its_own_is(days: Project) -> None:
    """At every cut, to the bit: what arrived late is not known before."""
    window, whole = moving(days, "user_item_similarity")
    store = days.store()
    for hour in hr.hour_range(FIRST, LAST):
        for first, cut in ((hr.add(hour, -24), hour), (hour, hr.add(hour, 1))):
            last = hr.add(cut, -1)
            recipe = replace(whole, cut=cut, lineage=lineage(store, first, last, cut))
            expected, found = build(store, recipe), window.rows(first, last, cut)
            assert found.schema == expected.schema
            assert content_digest(found) == content_digest(expected)
            assert found["hour"].to_pylist() == expected["hour"].to_pylist()
        window.drop_before(hr.add(hour, -23))
    store.close()


def test_what_is_dropped_is_not_held_and_what_is_held_is_not_read_again(days: Project) -> None:
    window, _ = moving(days)
    window.rows(HOURS[0], FIRST, hr.add(FIRST, 1))
    window.drop_before(FIRST)
    hours = {table: sorted(h for t, h in window._held if t == table)
             for table in ("samples", "outcomes")}  # fmt: skip
    late = [hr.add(FIRST, -back) for back in (3, 2, 1, 0)]
    assert hours == {"samples": [FIRST], "outcomes": late}
    shutil.move(days.folder / "warehouse", days.folder / "away")
    try:
        assert window.rows(FIRST, FIRST, hr.add(FIRST, 1)).num_rows == ROWS
        with pytest.raises(DamagedFileError, match=r"gone\. .*/build_samples"):
            window.rows(HOURS[0], FIRST, FIRST)
    finally:
        shutil.move(days.folder / "away", days.folder / "warehouse")


def replayed(days: Project, hours: list[str], names: str) -> dict[str, Track]:
    settings = load_settings(build_parser().parse_args(days.arguments()))
    store = settings.open_store()
    found = replay(store, settings, hours, cadences(names))
    store.close()
    assert isinstance(found, Replayed), found
    return {track.cadence.name: track for track in found.tracks}


def trained(days: Project, hour: str, **gbdt: Any) -> str:
    """The booster that train_gbdt registers."""
    configure(days, **gbdt)
    result = days.run("train_gbdt", "--hour", hour)
    assert result.code == 0, result.out + result.err
    registry = Registry(days.tracking_uri, retries=0)
    text: str = registry.load(NAME, result.summary["model"]["version"]).model.booster_text("click")
    return text


def test_models_are_those_that_train_gbdt_makes(days: Project) -> None:
    """To the letter, whatever the way; the daily model is that of the start of the day."""
    before = hr.add(LAST, -1)
    grown = trained(days, before)
    tracks = replayed(days, [before], "hourly")
    assert text(tracks["hourly"]) == grown
    assert (tracks["daily"].moment, tracks["hourly"].moment) == (DAY, before)
    assert text(tracks["daily"]) != grown
    [version] = [v.version for v in Registry(days.tracking_uri, retries=0).versions(NAME)]
    decision = {
        "decision_id": "by hand", "hour": before, "name": NAME, "action": "promote",
        "version": str(version), "champion": str(version), "previous": None, "reason": "by hand",
        "evidence": {},
    }  # fmt: skip
    store = days.store()
    promotions.append(store, decision, "done")
    store.close()
    on = {way: trained(days, LAST, way=way) for way in ("continue", "refit")}
    configure(days)
    tracks = replayed(days, [before, LAST], "hourly_continue,hourly_refit")
    assert {way: text(tracks[f"hourly_{way}"]) for way in on} == on
    assert len({grown, *on.values()}) == 3


def text(track: Track) -> str:
    assert track.model is not None
    return track.model.booster_text("click")


def test_nothing_is_fitted_on_or_judged_by_what_it_has_seen(days: Project) -> None:
    """The rows of a fit are older than its moment, and a model that knows an hour is refused."""
    window, _ = moving(days)
    spec = FeatureSpec(dense=("item_ctr_24h",), labels=("label_click",))
    configs = {"retrain": GBDTConfig.from_dict(QUICK)}
    served = Replay(window, spec, configs, 24, "UTC", ["click"], EvaluationSettings(), print)
    rows = served.training_rows(DAY)
    assert (pc.min(rows["hour"]).as_py(), pc.max(rows["hour"]).as_py()) == (
        HOURS[0], hr.add(DAY, -1),
    )  # fmt: skip
    track = Track(CADENCES["daily"])
    served.serve([track], DAY)
    assert track.model is not None
    with pytest.raises(RefusedError, match=f"daily version of {DAY} has seen {DAY}; it cannot"):
        unregistered("daily", track.model, DAY, DAY)
    track.moment, track.tried = hr.add(DAY, 2), hr.add(DAY, 2)  # as if it had been fitted later
    with pytest.raises(RefusedError, match=f"has seen {TURN}"):
        served.serve([track], TURN)


def test_a_fit_that_does_not_come_about_leaves_the_model_before(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a failed retraining does: an hour is missing, so that 23 are complete."""
    hours = [hour for hour in HOURS if hour != TURN]
    fill(project, "samples", turned, hours)
    fill(project, "outcomes", turned_clicks, hours)
    configure(project)
    tracks = replayed(project, hr.hour_range(DAY, LAST), "hourly,every_3h")
    said = capsys.readouterr().out
    assert "1 of 5 hours are not readable" in said
    kept = tracks["hourly"]
    assert (kept.fits, kept.kept, kept.moment) == (1, 3, DAY)
    assert tracks["every_3h"].kept == 1  # it is not tried again before it is due again
    assert f"hourly keeps the model of {DAY} at {EMPTY_HOUR}: 23 complete hours before it" in said
    assert [one.hour for one in kept.judged["click"]] == [h for h in hours if h >= DAY]
    assert np.array_equal(
        np.concatenate([one.ndcg for one in kept.judged["click"]]),
        np.concatenate([one.ndcg for one in tracks["daily"].judged["click"]]),
    )
