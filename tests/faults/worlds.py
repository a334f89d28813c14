"""What a small store lies in, and what runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.e2e.stack import Running

__all__ = ["WORLDS", "Folder"]


class Folder:
    """A folder, on a small file system of its own where one can be mounted here."""

    SIZE: Final = "96m"

    def __init__(self, run: Running) -> None:
        self.run = run
        self.warehouse = Path(run.env["RANKMILL_WAREHOUSE"])
        self.small = False
        """Whether the warehouse lies on a file system of its own."""

    def begin(self) -> None:
        """Make what the store needs before anything is written."""
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=0755", "rankmill-faults"]
        self.small = _quietly([*mount, str(self.warehouse)])

    def end(self) -> None:
        """Take it away again."""
        if self.small:
            _quietly(["umount", "--lazy", str(self.warehouse)])


def _quietly(command: list[str]) -> bool:
    """Whether ``command`` is there and does what it is asked."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


WORLDS: Final[Mapping[str, Callable[[Running], Folder]]] = {"folder": Folder}
