"""Refuses to start with settings that nobody reads, that contradict each other, or let all in.

``make run`` and ``make start`` ask first, and so does ``docker/entrypoint.sh`` before it becomes
the server or the job that it was told to be:

    python -m local.startup mlflow server --app-name basic-auth
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from local.exposure import exposed
from local.machine import FAIL, OK, Machine
from local.variables import settings, unknown_variables

__all__ = ["main", "refusal"]


def refusal(machine: Machine, command: Sequence[str] | None = None) -> str:
    """Why ``command`` must not start, by default `make run`, and what to do; empty when it may."""
    unknown = unknown_variables(machine)
    if unknown.level != OK:
        return unknown.sentence
    wrong = settings(machine, published=command is not None)
    return wrong.sentence if wrong.level == FAIL else exposed(machine.environ, command or ())


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when the command may start, else 2 after saying why not."""
    reason = refusal(Machine(), sys.argv[1:] if argv is None else argv)
    if reason:
        print(reason, file=sys.stderr)
    return 2 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
