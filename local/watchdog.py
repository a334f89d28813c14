"""Ends the stack when the process that runs it dies, however it dies.

Started beside the stack with a pipe as its standard input. The pipe closes when its writer is gone;
unless the word ``done`` came first, everything that the process file remembers is then stopped, if
no new run has begun to do so.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from local.processes import ProcessFile, stop_everything
from local.record import WATCHDOG, acquire

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Arguments: the state folder and the mark of its processes."""
    folder, mark = argv if argv is not None else sys.argv[1:]
    state = Path(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.stdin.read().strip() == "done":
        return 0
    with (state / "lock").open("a+") as handle:
        if acquire(handle):
            handle.truncate(0)
            handle.write(WATCHDOG)
            handle.flush()
            stop_everything(ProcessFile(state / "processes.json", mark))
            handle.truncate(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
