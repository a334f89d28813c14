"""Make ``.venv`` ready: run by ``make`` with whatever Python is there, standard library only.

The environment is built once from ``requirements.txt`` and reused for as long as the stamp in it
names the same requirements. An install that was cut short leaves a marker, and the next call then
builds the environment anew instead of trusting half of one.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from local.machine import FAIL, Machine, room_for_environment

__all__ = [
    "MARKER",
    "NATIVE_HINT",
    "SetupError",
    "answer",
    "find_java",
    "find_python",
    "fingerprint",
    "index_settings",
    "main",
    "prepare",
    "ready",
]

ROOT = Path(__file__).resolve().parent.parent
PYTHON_VERSION = (3, 11)
JAVA_VERSIONS = (17, 21)  # what Spark 4 supports; 17 is what this project is tested on
STAMP = ".rankmill-stamp"
MARKER = ".rankmill-installing"
PROBE = "import sys; print('%d.%d' % sys.version_info[:2])"
# One import for each wheel that brings a native library which a bare system may lack a part of.
NATIVE = "import lightgbm, numpy, pyarrow, psycopg2, psycopg, pyspark, numba"
NATIVE_HINT = "LightGBM needs the system's libgomp.so.1: apt-get install libgomp1"


class SetupError(Exception):
    """Something this machine lacks; the message says what, and where to put it."""


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"[setup] {message}", flush=True)


def answer(command: list[str], env: dict[str, str] | None = None) -> str | None:
    """What ``command`` printed on both streams, or None when it cannot run or failed."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            env=env,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def find_python(wanted: str | None, path: str | None = None) -> str:
    """The command of a Python 3.11: ``wanted``, else the first on ``path`` that is one.

    Raises:
        SetupError: when there is none, with the versions that were found instead.
    """
    candidates = [wanted] if wanted else ["python3.11", "python3", "python"]
    seen = []
    for candidate in candidates:
        command = shutil.which(candidate, path=path)
        version = answer([command, "-c", PROBE]) if command else None
        if command and version and version.strip() == "3.11":
            return command
        seen.append(f"{candidate}: {version.strip() if version else 'not found'}")
    raise SetupError(
        f"Python 3.11 is needed and was not found ({'; '.join(seen)}).\n"
        "Install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv; anywhere: "
        "uv python install 3.11),\nor say where it is: make PYTHON=/path/to/python3.11 ..."
    )


def find_java(environ: dict[str, str]) -> tuple[str, int]:
    """The command and major version of the Java that Spark will use: JAVA_HOME's, else PATH's.

    Raises:
        SetupError: when there is none, or one of another version.
    """
    home = environ.get("JAVA_HOME")
    command = f"{home}/bin/java" if home else shutil.which("java", path=environ.get("PATH"))
    remedy = (
        "\nInstall it (Debian, Ubuntu: apt-get install openjdk-17-jre-headless), or say where it "
        "is: make JAVA_HOME=/path/to/jdk-17 ..."
    )
    if not command:
        raise SetupError(f"Java 17 is needed by Spark: no java on PATH, JAVA_HOME unset.{remedy}")
    text = answer([command, "-version"])
    if text is None:
        origin = f"JAVA_HOME={home}" if home else "PATH"
        raise SetupError(
            f"Java 17 is needed by Spark: {command} (from {origin}) does not run.{remedy}"
        )
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    major = int(match.group(1)) if match else 0
    if major not in JAVA_VERSIONS:
        shown = text.strip().splitlines()[0] if text.strip() else "no version"
        raise SetupError(f"Java 17 is needed by Spark: {command} is {shown}.{remedy}")
    return command, major


def fingerprint(root: Path) -> str:
    """Changes when what must be installed changes: requirements, packaging, place, this file."""
    digest = hashlib.sha256(str(root).encode())
    for name in ("requirements.txt", "pyproject.toml", "local/setup.py"):
        digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()


def index_settings(environ: dict[str, str], pip_config: str) -> dict[str, str]:
    """pip's settings of where packages come from, under the names that uv reads.

    Args:
        environ: the environment; its own UV_* settings win.
        pip_config: the output of ``pip config list``, which reads pip's files and environment.
    """
    found = {}
    for line in pip_config.splitlines():
        match = re.match(r"(?:global|install|site|user|:env:)\.([a-z-]+)='(.*)'$", line.strip())
        if match:
            found[match.group(1)] = match.group(2)
    for key in ("find-links", "index-url", "extra-index-url", "cert"):
        value = environ.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            found[key] = value
    names = {
        "find-links": ("UV_FIND_LINKS", ","),
        "index-url": ("UV_DEFAULT_INDEX", " "),
        "extra-index-url": ("UV_INDEX", " "),
        "cert": ("SSL_CERT_FILE", " "),
    }
    result = {}
    for key, (name, joint) in names.items():
        if found.get(key) and not environ.get(name):
            result[name] = joint.join(found[key].split())
    if "UV_INDEX" in result or environ.get("UV_INDEX"):
        # pip takes the best version from all indexes; uv would stop at the first that knows a name.
        result["UV_INDEX_STRATEGY"] = environ.get("UV_INDEX_STRATEGY", "unsafe-best-match")
    return result


def make_environment(python: str, venv: Path) -> None:
    """Create ``venv`` unless it holds a working Python 3.11 and no marker of a cut-off install."""
    inside = str(venv / "bin" / "python")
    half = (venv / MARKER).exists()
    if not half and (answer([inside, "-c", PROBE]) or "").strip() == "3.11":
        return
    if venv.exists():
        say("the last install was cut short; building .venv anew" if half else "replacing .venv")
        shutil.rmtree(venv)
    venv.mkdir(parents=True)
    (venv / MARKER).touch()
    done = subprocess.run(
        [python, "-m", "venv", str(venv)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    uv = shutil.which("uv")
    if uv and answer([uv, "venv", "--seed", "--allow-existing", "--python", python, str(venv)]):
        return
    raise SetupError(
        f"{python} cannot create a virtual environment:\n{(done.stdout + done.stderr).strip()}\n"
        "Debian and Ubuntu keep that part apart: apt-get install python3.11-venv"
    )


def find_uv(venv: Path) -> str | None:
    """A uv that runs: the machine's, the environment's, or one installed there now; else None."""
    for candidate in (shutil.which("uv"), str(venv / "bin" / "uv")):
        if candidate and answer([candidate, "--version"]):
            return candidate
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    answer([*pip, "install", "--quiet", "--retries", "1", "uv"])
    own = str(venv / "bin" / "uv")
    return own if answer([own, "--version"]) else None


def install(venv: Path, root: Path) -> str:
    """Install the pinned requirements and the project, editable; returns the tool that did it.

    Raises:
        SetupError: when neither uv nor pip can, after their own messages.
    """
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    editable = ["--no-deps", "--no-build-isolation", "--editable", str(root)]
    requirements = ["--requirement", str(root / "requirements.txt")]
    uv = find_uv(venv)
    if uv:
        environ = {**os.environ, "VIRTUAL_ENV": str(venv)}
        environ.update(index_settings(environ, answer([*pip, "config", "list"]) or ""))
        if not environ.get("UV_CACHE_DIR") and not same_device(venv):
            environ.setdefault("UV_LINK_MODE", "copy")
        base = [uv, "pip", "install", "--quiet", "--python", python]
        say("installing about 190 packages with uv (1 minute when cold) ...")
        if run([*base, "--compile-bytecode", *requirements], environ) and run(
            [*base, *editable], environ
        ):
            return "uv"
        say("uv did not manage; trying pip")
    say("installing about 190 packages with pip (2 to 3 minutes when cold) ...")
    if run([*pip, "install", "--quiet", *requirements], None) and run(
        [*pip, "install", "--quiet", *editable], None
    ):
        return "pip"
    raise SetupError(
        "The packages could not be installed; the installer's message is above. Where the network "
        "is closed, point PIP_INDEX_URL or PIP_FIND_LINKS at a mirror and call make again."
    )


def same_device(venv: Path) -> bool:
    """Whether uv's cache and ``venv`` share a file system, so that it can link files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.exists() and cache.stat().st_dev == venv.stat().st_dev


def run(command: list[str], env: dict[str, str] | None) -> bool:
    """Run with this terminal's output; whether it succeeded."""
    return subprocess.run(command, env=env, check=False).returncode == 0


def check_native(venv: Path) -> None:
    """Load the native libraries once, so that a missing system library is named now.

    Raises:
        SetupError: with the loader's words.
    """
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-W", "ignore", "-c", NATIVE],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines()
    last = lines[-1] if lines else f"exit status {done.returncode}"
    hint = ""
    if "libgomp" in last:
        hint = f"\n{NATIVE_HINT}"
    raise SetupError(f"The installed packages do not load: {last}{hint}")


def ready(root: Path) -> bool:
    """Whether ``root/.venv`` holds, whole, what ``requirements.txt`` asks for now."""
    stamp = root / ".venv" / STAMP
    whole = stamp.exists() and not (root / ".venv" / MARKER).exists()
    return whole and stamp.read_text() == fingerprint(root)


def prepare(root: Path, wanted_python: str | None) -> None:
    """Bring ``root/.venv`` to the state that ``requirements.txt`` asks for.

    Raises:
        SetupError: no Python, no room, or packages that cannot be installed or loaded.
    """
    venv = root / ".venv"
    stamp = venv / STAMP
    mark = fingerprint(root)
    if ready(root):
        if (answer([str(venv / "bin" / "python"), "-c", PROBE]) or "").strip() == "3.11":
            return
        shutil.rmtree(venv)
    started = time.monotonic()
    python = find_python(wanted_python)
    room = room_for_environment(Machine(root=root))
    if room.level == FAIL:
        raise SetupError(room.sentence)
    make_environment(python, venv)
    (venv / MARKER).touch()
    stamp.unlink(missing_ok=True)
    tool = install(venv, root)
    check_native(venv)
    stamp.write_text(mark)
    (venv / MARKER).unlink()
    say(f".venv is ready ({tool}, {time.monotonic() - started:.0f} s)")


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 when everything is there, else 1 after saying what is missing."""
    parser = argparse.ArgumentParser(description="Create or reuse .venv; check Python and Java.")
    parser.add_argument("--python", default=os.environ.get("PYTHON") or None)
    arguments = parser.parse_args(argv)
    lock = ROOT / ".rankmill" / "setup.lock"
    try:
        lock.parent.mkdir(exist_ok=True)
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            find_java(dict(os.environ))
            prepare(ROOT, arguments.python)
    except SetupError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
