"""No late writers: a job ends with its parent, and commits only while its token is the newest."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from feature_store.tables import Store, Writer

__all__ = ["ORPHANED", "claim", "end_with_parent", "run_token"]

ORPHANED = 137
"""Exit status of a job whose parent died, that of a killed process."""

_PARENT = os.getppid()
_GATEWAY = "PYSPARK_GATEWAY_PORT"
"""What spark-submit sets for its driver."""
_POLL_SECONDS = 0.2


def end_with_parent() -> None:
    """Watch the parent process and leave at once when it is gone.

    A killed spark-submit leaves its Python driver to run on, and a killed Airflow worker leaves
    both: neither may commit afterwards.
    """
    if _GATEWAY in os.environ and not _is_jvm(_PARENT):
        _leave()  # spark-submit was killed before this process could know its number
    threading.Thread(target=_watch, name="parent-watch", daemon=True).start()


def _watch() -> None:
    while os.getppid() == _PARENT:
        time.sleep(_POLL_SECONDS)
    _leave()


def _is_jvm(pid: int) -> bool:
    """Whether ``pid`` runs Java, as the parent of a spark-submit's driver does; so it is taken
    where processes cannot be looked at."""
    program = Path("/proc") / str(pid) / "exe"
    try:
        return program.readlink().name == "java"
    except FileNotFoundError:
        return not Path("/proc/self/exe").exists()
    except PermissionError:
        return True


def _leave() -> NoReturn:
    sys.stderr.write("the parent process is gone; this job ends without writing\n")
    sys.stderr.flush()
    os._exit(ORPHANED)


def run_token(run_id: str | None) -> str:
    """The fencing token: run id and try, made unique per process."""
    name = run_id or os.environ.get("RANKMILL_RUN_ID") or "by-hand"
    return f"{name}/{uuid.uuid4().hex[:12]}"


def claim(store: Store, stage: str, hours: Sequence[str], token: str) -> Writer:
    """Take the fence of ``stage`` at ``hours``; whoever held it before can no longer commit."""
    store.ledger.take_fence(stage, hours, token)
    return Writer(stage, token)
