"""Every fault about once, on the cheapest job that shows it; a job killed, five times.

`make faults` meets every job that a fault makes sense for, and those faults that take minutes.
RANKMILL_FAULT_TRIES=N kills a job N times here, RANKMILL_FAULT_SEED=S at other moments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.stack import requires_java
from tests.faults.catalogue import FAULTS
from tests.faults.small_store import SmallStore, jobs_of
from tests.faults.trials import Trial, planned

SEED = int(os.environ.get("RANKMILL_FAULT_SEED") or "28")
COUNT = int(os.environ.get("RANKMILL_FAULT_TRIES") or "5")
KILLS, *OTHERS = (fault for fault in FAULTS if fault.short)
TRIES = [
    *(planned(KILLS, SEED, number) for number in range(COUNT)),
    *(planned(fault, SEED, 0, jobs=1) for fault in OTHERS),
]

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900), requires_java]


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, SmallStore]]:
    """One store for each world, made when it is first asked for."""
    made: dict[str, SmallStore] = {}
    yield made
    for store in made.values():
        store.close()


@pytest.mark.parametrize("trial", TRIES, ids=str)
def test_a_fault_leaves_nothing_in_parts_and_a_rerun_the_same(
    stores: dict[str, SmallStore], trial: Trial
) -> None:
    world = trial.fault.world
    if world not in stores:
        names = [other.job.name for other in TRIES if other.fault.world == world]
        stores[world] = SmallStore(jobs_of(names), world)
    if stores[world].lost:
        pytest.skip("an earlier try lost something: the store is not what it was")
    print(stores[world].attempt(trial))
