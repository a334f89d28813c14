"""What the image of the service `postgres` does at its start, with the wheel's PostgreSQL.

A cluster that asks for the password, the user and database of its variables, what scripts made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from local.database import binaries, unprivileged
from tests.cluster.compose import HOST, Moved, Places

__all__ = ["postgres_command", "postgres_environment"]

User = tuple[int, int] | None


def postgres_environment(moved: Moved, places: Places) -> dict[str, str]:
    """The service's variables, and where its programs find the server without being told."""
    return {
        **moved.environment,
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "PGHOST": HOST,
        "PGPORT": str(places.ports["postgres", "5432"]),
        "LC_ALL": "C.UTF-8",
    }


def postgres_command(moved: Moved, places: Places, password: str) -> tuple[tuple[str, ...], User]:
    """The command that serves a cluster, which is made and filled, and the user who runs it."""
    user, folder = unprivileged(), places.folder / "volumes" / "postgres" / "data"
    env = postgres_environment(moved, places)
    name, database = env["POSTGRES_USER"], env["POSTGRES_DB"]
    folder.mkdir(parents=True, mode=0o700)
    file = folder.parent / "password"
    file.write_text(password)
    for path in (folder, file):
        if user:
            os.chown(path, *user)
    call("initdb", "--auth=scram-sha-256", f"--pwfile={file}", f"--username={name}",
         "--encoding=utf8", "--locale=C.UTF-8", "--no-sync", f"--pgdata={folder}",
         env=env, user=user)  # fmt: skip
    file.unlink()
    single = ("postgres", "--single", "-j", "-D", str(folder))
    call(*single, "postgres", env=env, user=user, said=f"CREATE DATABASE {database};\n\n")
    scripts = Path(moved.service.volumes["/docker-entrypoint-initdb.d"])
    for script in sorted((Path("docker") / scripts).glob("*.sql")):
        statements = [s for s in script.read_text().split(";\n") if s.strip()]
        for statement in statements:
            call(*single, database, env=env, user=user, said=f"{statement.strip()};\n\n")
    sockets = f"unix_socket_directories={folder.parent}"
    shutil.chown(folder.parent, *(user or (os.geteuid(), os.getegid())))
    serve = (str(binaries() / "postgres"), "-D", str(folder), "-c", f"listen_addresses={HOST}",
             "-p", env["PGPORT"], "-c", sockets, "-c", "fsync=off")  # fmt: skip
    return serve, user


def call(program: str, *arguments: str, env: dict[str, str], user: User, said: str = "") -> None:
    """Run one of PostgreSQL's programs as the server's user."""
    done = subprocess.run(
        [str(binaries() / program), *arguments],
        env=env,
        cwd="/",
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=[] if user else None,
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    words = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0 and "ERROR" not in words, f"{program}: {words}"
