"""What a failed job tells its operator: a sentence, where it is something that can be mended."""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from feature_store.damage import DamagedFileError
from feature_store.ledger import FencedOutError, LedgerError
from feature_store.staged import StoreError
from feature_store.storage import unanswered
from models.versions import RegistryError

__all__ = ["sentence"]

_NAMED: Final = (FencedOutError, LedgerError, RegistryError, StoreError)
"""Errors whose message says what is wrong and what to do."""

_WORKERS: Final = (DamagedFileError,)
"""Those of them that Spark's workers raise."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
# What is raised in Spark's workers, or in its JVM, comes here as a text only.
_FULL_TEXT: Final = re.compile(r"No space left on device|Disk quota exceeded")
_NAMED_TEXT: Final = re.compile(rf"\b(?:{'|'.join(one.__name__ for one in _WORKERS)}): (.+)")
_BUCKET_TEXT: Final = re.compile(r"AWS Error .+")


def sentence(error: BaseException, arguments: argparse.Namespace) -> str | None:
    """What is wrong and what to do about it; None for what only a stack explains."""
    for one in _chain(error):
        if _is_full(one):
            return _full(one, arguments)
    for one in _chain(error):
        if isinstance(one, _NAMED):
            return str(one)
        if told := _NAMED_TEXT.search(str(one)):
            return told[1]
    for one in _chain(error):
        if told := _BUCKET_TEXT.search(str(one)):
            return unanswered(told[0])
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error``, and what it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return _FULL_TEXT.search(str(error)) is not None


def _full(error: BaseException, arguments: argparse.Namespace) -> str:
    named = error.filename if isinstance(error, OSError) else None
    warehouse = getattr(arguments, "warehouse", None) or os.environ.get("RANKMILL_WAREHOUSE")
    places = (named, warehouse, os.environ.get("RANKMILL_SCRATCH"), tempfile.gettempdir())
    free = dict(_free(Path(str(place))) for place in places if place and "://" not in str(place))
    listed = ", ".join(f"{folder} has {left / 2**20:,.0f} MB" for folder, left in free.items())
    return (
        f"no space left on a disk that this job writes to: {listed}. Nothing in parts can be seen. "
        "Make room there (maintain.py removes what no table names any more), or point "
        "RANKMILL_WAREHOUSE, RANKMILL_SCRATCH or TMPDIR to a larger disk, and run the same "
        "command again."
    )


def _free(place: Path) -> tuple[str, int]:
    """The nearest folder of ``place`` that is there, and its free bytes."""
    folder = next(folder for folder in (place, *place.parents) if folder.is_dir())
    return str(folder), shutil.disk_usage(folder).free
