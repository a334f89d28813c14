"""The quarantine ages: whole hours go, and what is known of them stays."""

from __future__ import annotations

import pyarrow as pa

from feature_store import hours as hr
from feature_store.maintenance import Aged, MaintenanceRules, age_quarantine
from feature_store.schemas import QUARANTINE
from feature_store.tables import HourWriter, Staged, Store
from tests.feature_store.gate_hours import HOURS, claim

FIRST, SECOND = HOURS[:2]


def quarantined(store: Store, *hours: str) -> Staged:
    made = Staged("quarantine")
    for hour in hours:
        row = {"event_id": "e", "reason": "late", "row_json": "{}", "hour": hour}
        writer = HourWriter(store, "quarantine", hour)
        writer.write(pa.Table.from_pylist([row], schema=QUARANTINE))
        writer.close(made)
    return made


def test_the_quarantine_ages_by_whole_hours_that_stay_complete(store: Store) -> None:
    hours = [*HOURS[:2], hr.add(FIRST, 30 * 24 - 1), hr.add(FIRST, 30 * 24)]
    for hour in hours:
        claim(store, hour)
    writer = claim(store, hours[0])
    store.commit(quarantined(store, *hours), writer)
    known = store.ledger.completions("quarantine", "0", "9")
    keep_from = MaintenanceRules().quarantined_from(hr.add(SECOND, 30 * 24))
    assert keep_from == SECOND
    dry = age_quarantine(store, keep_from, dry=True)
    assert (dry.hours, dry.files) == (1, 1)
    assert age_quarantine(store, keep_from) == dry
    assert sorted(store.read("quarantine", hours)["hour"].to_pylist()) == hours[1:]
    assert store.ledger.completions("quarantine", "0", "9") == known
    assert age_quarantine(store, keep_from) == Aged()
    snapshot = store.snapshot_id("quarantine")
    assert store.commit(quarantined(store, hours[0]), writer) == snapshot, "not brought back"
    assert store.read("quarantine", [hours[0]]).num_rows == 0


def test_a_store_without_quarantine_is_fine(store: Store) -> None:
    assert age_quarantine(store, FIRST) == Aged()
    assert store.existing() == []
