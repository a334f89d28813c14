"""Jobs killed at random moments: nothing in parts is seen, and a rerun is whole again.

Five kills of a seed; RANKMILL_FAULT_TRIES=N makes N of them, RANKMILL_FAULT_SEED=S others.
`make bench-kills ARGS="--tries 100"` goes on after a loss and counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.stack import requires_java
from tests.faults.kills import SmallStore, Try, jobs_of, planned

SEED = int(os.environ.get("RANKMILL_FAULT_SEED") or "28")  # any; of this one five are quick
COUNT = int(os.environ.get("RANKMILL_FAULT_TRIES") or "5")
TRIES = [planned(SEED, number) for number in range(COUNT)]

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900), requires_java]


@pytest.fixture(scope="module")
def store() -> Iterator[SmallStore]:
    made = SmallStore(jobs_of(TRIES))
    yield made
    made.close()


@pytest.mark.parametrize("trial", TRIES, ids=str)
def test_a_kill_leaves_nothing_in_parts_and_a_rerun_the_same(store: SmallStore, trial: Try) -> None:
    if store.lost:
        pytest.skip("an earlier try lost something: the store is not what it was")
    print(store.attempt(trial))
