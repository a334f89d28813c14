"""No late writers: a job ends with its parent, and commits only while its token is the newest."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from feature_store.ledger import FencedOutError
from feature_store.tables import Store, Writer

__all__ = ["ORPHANED", "claim", "end_with_parent", "one_at_a_time", "run_token"]

ORPHANED = 137
"""Exit status of a job whose parent died, that of a killed process."""

_PARENT = os.getppid()
_GATEWAY = "PYSPARK_GATEWAY_PORT"
"""What spark-submit sets for its driver."""
_POLL_SECONDS = 0.2
_TURNS = 20


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


@contextmanager
def one_at_a_time(store: Store, stage: str, hours: Sequence[str], token: str) -> Iterator[None]:
    """Alone in ``stage`` at ``hours`` among runs that share them; the others wait their turn."""
    with ExitStack() as held:
        for last in (*[False] * _TURNS, True):
            store.ledger.take_fence(stage, hours, token)
            try:
                held.enter_context(store.ledger.holding(stage, hours, token))
            except FencedOutError:  # another came between, and is waited for
                if last:
                    raise
            else:
                break
        yield
