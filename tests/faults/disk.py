"""A disk that is full."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.small_store import SmallStore
from tests.faults.trials import Dealt, Trial
from tests.faults.victim import Victim

__all__ = ["disk_full"]

LEFT_BYTES = 1 << 16
BLOCK = 1 << 16


def disk_full(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """The warehouse's file system is filled up, but for up to 64 KiB, until the job has ended."""
    if not store.world.small:
        pytest.skip("no file system can be mounted here: the disk cannot be filled")
    filler = store.world.warehouse / "filler"

    @contextlib.contextmanager
    def full(_victim: Victim) -> Iterator[str]:
        fill(filler, trial.chance.randrange(LEFT_BYTES))
        try:
            yield "disk"
        finally:
            filler.unlink()

    return store.meet(trial, at, full)


def fill(path: Path, left: int) -> None:
    """Write ``path`` until nothing more fits, then give ``left`` bytes back."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(BLOCK))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
        file.truncate(max(0, file.tell() - left))
