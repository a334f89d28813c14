"""Files that are not what was written."""

from __future__ import annotations

import contextlib
import random
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from tests.e2e.stack import REPOSITORY, finished
from tests.faults.hourly import HOUR
from tests.faults.small_store import SmallStore
from tests.faults.trials import Dealt, Trial

__all__ = ["committed_file_damaged", "source_file_damaged"]

KINDS: Final = ("cut short", "a byte changed", "empty", "gone")

READS: Final[Mapping[str, str]] = {
    "validate_events": "events",
    "extract_features": "events",
    "build_samples": "events",
    "evaluate": "samples",
    "build_graph": "events",
    "embed_graph": "edges",
}
"""A table whose last hour a job reads."""

COLUMNS: Final = ("action", "user_id", "source_id")
"""Columns that every reader reads; a table of ``READS``, and the log, has one of them."""

MAKES: Final = re.compile(r"Make that again with: spark-submit (jobs/\S+\.py (?:--hour )?[^;]*);")


def source_file_damaged(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """A file of the log is cut short, empty, or has a byte changed; then it comes whole."""
    [path] = (Path(store.run.env["RANKMILL_DATA"]) / "events" / f"hour={HOUR}").iterdir()
    with spoilt(path, trial.number % 3, trial.chance):
        dealt = store.meet(trial, at, lambda _: contextlib.nullcontext("file"))
    assert dealt.status == 3, f"exit status {dealt.status}\n{dealt.words}"
    assert str(path) in dealt.words, dealt.words
    return Dealt("file", dealt.status, dealt.words)


def committed_file_damaged(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """A committed file that the job reads is cut short, gone, or has a byte changed; then the
    command that the job names makes it again."""
    table = READS[trial.job.name]
    path, *_ = store.run.store.files(table, [HOUR])
    kind = trial.number % len(KINDS)
    if trial.job.name == "validate_events":  # of what its footer tells a gate gives its verdict
        kind = KINDS.index("a byte changed")
    spoil(Path(path), kind, trial.chance)
    dealt = store.meet(trial, at, lambda _: contextlib.nullcontext("file"))
    assert dealt.status != 0, f"nobody noticed that {path} is damaged\n{dealt.words}"
    assert path in dealt.words, dealt.words
    told = MAKES.search(dealt.words)
    assert told is not None, f"no command is named\n{dealt.words}"
    finished(_command(store, told[1]), store.run.env)
    assert store.run.store.intact(table, [HOUR]) == {HOUR}, f"{told[1]} left it damaged"
    return Dealt("file", dealt.status, dealt.words)


def _command(store: SmallStore, told: str) -> list[str]:
    """The command line that the job told, with what only its operator knows."""
    told = re.sub(r"--date D of the business day that ends with \S+", "--date 2026-11-09", told)
    job, *arguments = shlex.split(told)
    if job in ("jobs/ingest_events.py", "jobs/validate_events.py"):
        return [sys.executable, str(REPOSITORY / job), *arguments]
    return store.run.submit(Path(job).stem, *arguments)


@contextlib.contextmanager
def spoilt(path: Path, kind: int, chance: random.Random) -> Iterator[None]:
    """The file is damaged for as long as this lasts."""
    sound = path.read_bytes()
    try:
        spoil(path, kind, chance)
        yield
    finally:
        path.write_bytes(sound)


def spoil(path: Path, kind: int, chance: random.Random) -> None:
    """Damage the file as ``KINDS`` says."""
    sound = path.read_bytes()
    if KINDS[kind] == "gone":
        path.unlink()
    elif KINDS[kind] == "empty":
        path.write_bytes(b"")
    elif KINDS[kind] == "cut short":
        path.write_bytes(sound[: chance.randrange(1, len(sound))])
    else:
        at = page_byte(path, chance)
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])


def page_byte(path: Path, chance: random.Random) -> int:
    """Where a byte of a page lies that readers read: none of its header, which has no checksum."""
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(place) for place in range(group.num_columns)]
    [chunk, *_] = [chunk for name in COLUMNS for chunk in chunks if chunk.path_in_schema == name]
    starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
    end = min(start for start in starts if start) + chunk.total_compressed_size
    return end - 1 - chance.randrange(4)
