"""History is what the samples hold: real jobs build both from one log, and nothing may differ."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.historical import get_historical_features
from feature_store.services import feature_service
from feature_store.tables import Store
from feature_store.training_set import content_digest
from jobs.build_samples import JOB, build
from jobs.support.fencing import claim
from jobs.support.settings import load_settings
from tests.jobs.conftest import Project
from tests.jobs.test_extract_features import START, ZONE, filled, run
from tests.session import uses_spark

pytestmark = uses_spark

LAST = hr.add(START, 40)


def with_queries(store: Store, samples: pa.Table) -> pa.Table:
    """Samples with what their impression's event says and they do not keep."""
    events = store.read("events", store.readable_hours("events", START, LAST))
    place = pc.index_in(samples["sample_id"], value_set=events["event_id"].combine_chunks())
    return samples.append_column("query", events["query"].take(place))


def test_history_equals_the_samples(spark: SparkSession, project: Project, tmp_path: Path) -> None:
    """With every view, late impressions, and keys that are looked up."""
    project.configure(
        source={"name": "parquet", "options": {"path": str(project.data), "time_zone": ZONE}}
    )
    store = filled(tmp_path)
    run(spark, store, START, LAST)
    hours = hr.hour_range(START, LAST)
    arguments = _arguments(project)
    writer = claim(store, JOB, hours, "test")
    build(spark, store, load_settings(arguments), hours, writer, dry=False)
    samples = with_queries(store, store.read("samples", hours))
    in_own_hour = pc.equal(pc.floor_temporal(samples["event_time"], unit="hour"), samples["as_of"])
    # An impression knows its category as of the hour that learned of it; entities begin at START.
    since = pc.greater_equal(samples["event_time"], pa.scalar(hr.start_of(START)))
    samples = samples.filter(pc.and_(in_own_hour, since))
    service = feature_service("ranking")
    brought = ["user_id", "item_id", "room_id", "query", "scene", "target_type", "event_time"]
    found = get_historical_features(store, samples.select(brought), service, time_zone=ZONE)
    assert samples.num_rows > 250
    for column in service.columns():
        one, other = (table.select([column]) for table in (found, samples))
        assert content_digest(one) == content_digest(other), column
    known = [c for c in service.columns() if len(samples[c].unique()) > 1]
    assert len(known) > len(service.columns()) / 3, "the control: most columns say something"
    store.close()


def _arguments(project: Project) -> argparse.Namespace:
    options = dict.fromkeys(("data", "warehouse", "catalog_uri", "tracking_uri"))
    return argparse.Namespace(config=str(project.folder / "conf.yaml"), **options)
