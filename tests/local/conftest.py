"""A project of its own for each test, small and in a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.stack import Stack, open_stack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project() -> Iterator[Path]:
    """A project root with configurations, which the database's user may enter.

    pytest's own tmp_path is closed to other users, and its paths are too long for sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix="rankmill-test-"))
    folder.chmod(0o755)
    shutil.copytree(ROOT / "conf", folder / "conf")
    for name in ("demo", "kuairand"):
        (folder / "conf" / f"{name}.yaml").touch()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stack(project: Path) -> Stack:
    """The simulator's stack of that project."""
    return open_stack("simulator", None, root=project)


@pytest.fixture
def base_env() -> dict[str, str]:
    """What a child needs to find its programs."""
    return {"PATH": os.environ["PATH"]}
