"""A project of its own for each test, small and in a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.machine import Machine
from local.stack import Stack, open_stack
from tests.local.machines import disk, files, meminfo

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


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    """A machine that has what is needed, and a project that was not set up."""
    proc, cgroup, root = (tmp_path / name for name in ("proc", "cgroup", "project"))
    for folder in (proc / "self", cgroup, root / "local", root / "conf"):
        folder.mkdir(parents=True)
    for name in ("requirements.txt", "pyproject.toml", "local/setup.py"):
        shutil.copy(ROOT / name, root / name)
    meminfo(proc, available=8, swap=1)
    (proc / "self" / "cgroup").write_text("0::/jobs/one\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    return Machine(root, environ, None, proc, cgroup, disk(71), files(10**6))
