"""What nothing reads again: old pages, runs of versions that were pruned, fences of old hours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from feature_store.maintenance import MaintenanceRules
from feature_store.tables import Store
from jobs.support.logged_page import PAGES, page_key
from models.registry import Registry

__all__ = ["Forgotten", "forget"]


@dataclass(frozen=True)
class Forgotten:
    """How many runs and fences went; in a dry run, how many are old enough.

    A dry run counts the runs of kept versions as well: whether one needs it is asked run by run.
    """

    runs: int = 0
    fences: int = 0

    def words(self) -> str:
        """What was done, for the log; empty when there was nothing to do."""
        counts = {"runs": self.runs, "fences": self.fences}
        return ", ".join(f"{count:,} old {what} removed" for what, count in counts.items() if count)


def forget(
    store: Store, registry: Registry, rules: MaintenanceRules, hour: str, now: dt.datetime,
    names: Iterable[str], fenced: Callable[[], AbstractContextManager[None]], dry: bool,
) -> Forgotten:  # fmt: skip
    """Remove the store's pages, and the runs of ``names`` without a version, from before
    ``rules.records_before(now)``, and the fences of hours before ``rules.fences_before(hour)``.

    Args:
        fenced: holds the fence of this run, or raises when another took over.
        dry: change nothing.

    Raises:
        RegistryError: for a registry that cannot be reached.
    """
    instant = rules.records_before(now)
    pages = [(experiment, page_key(store, experiment)) for experiment in PAGES]
    runs = 0
    for experiment, key in (*pages, *((name, "") for name in names)):
        for run_id in registry.runs_before(experiment, instant, key):
            if dry:
                runs += 1
                continue
            with fenced():
                runs += registry.forget_run(run_id)
    with fenced():
        fences = store.ledger.drop_fences(rules.fences_before(hour), dry)
    return Forgotten(runs, fences)
