"""What a state folder already holds, so that a second run repeats none of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator
from typing import IO, Any

from local.stack import LocalError, Stack

__all__ = [
    "WATCHDOG",
    "Record",
    "acquire",
    "data_fingerprint",
    "holder",
    "only_one",
    "tool_versions",
    "watched_hours",
]

WATCHDOG = "watchdog"
HOUR_FORMAT = "%Y-%m-%dT%H"
WATCHED = 3  # the last hours, which Airflow runs itself


class Record:
    """A small JSON file: schema versions, data, span and bootstrap, each written when complete."""

    def __init__(self, stack: Stack) -> None:
        self.path = stack.state / "record.json"
        self.values: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.values = json.loads(self.path.read_text())
            except ValueError as error:
                raise LocalError(
                    f"{self.path} is not readable ({error}); start anew with: make clean STATE=yes"
                ) from error

    def get(self, key: str) -> Any:
        """The value, or None when that step has not been completed."""
        return self.values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Write down that a step is complete."""
        self.values[key] = value
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(self.values, indent=2))
        draft.replace(self.path)


def tool_versions() -> dict[str, str]:
    """The versions that decide how the databases' tables look."""
    names = ("apache-airflow-core", "mlflow")
    return {name: importlib.metadata.version(name) for name in names}


def data_fingerprint(stack: Stack) -> str:
    """Changes when the source's files do: names, sizes and times; fixed for simulated data."""
    if stack.simulated:
        return "simulated"
    if stack.data is None:
        return "as configured"
    files = [stack.data] if stack.data.is_file() else sorted(stack.data.rglob("*"))
    digest = hashlib.sha256(str(stack.data).encode())
    for path in files:
        if path.is_file():
            info = path.stat()
            digest.update(f"{path}\0{info.st_size}\0{info.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def watched_hours(first: str, last: str) -> tuple[str, list[str]]:
    """The last hour to bootstrap and the hours for Airflow, of a source from ``first`` to ``last``.

    Raises:
        LocalError: when there are too few hours for both.
    """
    end = dt.datetime.strptime(last, HOUR_FORMAT).replace(tzinfo=dt.UTC)
    back = [end - dt.timedelta(hours=count) for count in range(WATCHED, -1, -1)]
    before, *hours = [hour.strftime(HOUR_FORMAT) for hour in back]
    if before < first:
        raise LocalError(
            f"The data spans only {first} to {last}: at least {WATCHED + 1} hours are needed, "
            "and 28 before a model is trained."
        )
    return before, hours


def holder(stack: Stack) -> int | None:
    """The id of the process that is at work in the state folder, if any."""
    with (stack.state / "lock").open("a+") as handle:
        if acquire(handle):
            return None
        handle.seek(0)
        text = handle.read().strip()
    return int(text) if text.isdigit() else None


def acquire(handle: IO[str]) -> bool:
    """Take the lock now, or say that another process holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def only_one(stack: Stack, patience: float = 0) -> Iterator[None]:
    """Hold the state folder; a second run of the same source is turned away.

    Args:
        patience: seconds to wait for another run. The watchdog of one that died, which is ending
            what that run had started, is always waited for.

    Raises:
        LocalError: when another process holds it.
    """
    begun = time.monotonic()
    with (stack.state / "lock").open("a+") as handle:
        while not acquire(handle):
            handle.seek(0)
            holds = handle.read().strip()
            if time.monotonic() - begun > max(patience, 60 if holds == WATCHDOG else 0):
                raise LocalError(
                    f"Another make run with SOURCE={stack.source} is at work (pid {holds}). End it "
                    f"with Ctrl-C in its terminal or with: make stop SOURCE={stack.source}"
                )
            time.sleep(0.2)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)
