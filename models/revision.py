"""Files of a registered version exchanged for others, with the hashes that its hand-off names.

MLflow takes files one by one. What is about to change is noted in a tag first, so that a version
that was left half changed is known from one that somebody altered, and is finished by doing the
same again.
"""

from __future__ import annotations

import abc
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from models.base import read_json, write_json
from models.handoff import HANDOFF_FILE, SCHEMA_VERSION, file_shas
from models.run_files import RunFiles
from models.versions import RegistryError, Version

__all__ = ["Revision"]

_PENDING: Final = "revising"


class Revision(RunFiles):
    """Changing what is registered, on MLflow's client, which a subclass supplies."""

    def download(self, version: Version, folder: Path) -> Path:
        """Fetch the artefact folder of a version below ``folder``; returns where it lies."""
        [found] = (self._fetch(version, folder) / "artifacts").iterdir()
        return found

    def mark(self, version: Version, key: str, value: str) -> None:
        """Set a tag of a version."""
        self._set_tag(version, key, value)

    def revise(
        self, version: Version, change: Callable[[Path, Path], object], dry: bool = False
    ) -> bool:
        """Let ``change`` edit a copy of a version's files, and register what it changed.

        ``change`` gets the folder of the whole model and the artefact folder in it, whose hashes in
        handoff.json are brought up to date afterwards. The same change on files that it has changed
        already must be without effect. It may not remove files.

        Args:
            dry: register nothing.

        Returns:
            Whether anything changed.

        Raises:
            RegistryError: when its files are not what was registered.
        """
        pending: dict[str, str] = json.loads(version.tags.get(_PENDING, "{}"))
        with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
            whole, folder = self._unchecked(version, Path(scratch) / "now")
            _check(version, whole, folder, pending)
            before = _shas(whole)
            change(whole, folder)
            handoff = read_json(folder / HANDOFF_FILE)
            if handoff["files"] != file_shas(folder):
                write_json(folder / HANDOFF_FILE, {**handoff, "files": file_shas(folder)})
            changed = {name: sha for name, sha in _shas(whole).items() if before.get(name) != sha}
            if dry or not (changed or pending):
                return bool(changed or pending)
            self.mark(version, _PENDING, json.dumps({**pending, **changed}, sort_keys=True))
            fresh = Path(scratch) / "fresh"
            for name in {**pending, **changed}:
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(whole / name, fresh / name)
            what = f"take changed files of {version.name} version {version.version}"
            self._call(what, lambda c: c.log_model_artifacts(version.model_id, str(fresh)))
            self._upload(version.run_id, "", {HANDOFF_FILE: folder / HANDOFF_FILE})
            self._settled(version)
        return True

    def replace_text(self, version: Version, path: str, text: str) -> None:
        """Write ``text`` over what the run of ``version`` keeps at ``path``."""
        place = PurePosixPath(path)
        folder = "" if str(place.parent) == "." else str(place.parent)
        self._upload(version.run_id, folder, {place.name: text})

    def _unchecked(self, version: Version, target: Path) -> tuple[Path, Path]:
        """A version's files below ``target``: the whole model, and the artefact folder in it."""
        target.mkdir()
        whole = self._fetch(version, target)
        found = [*(whole / "artifacts").glob(f"*/{HANDOFF_FILE}")]
        if len(found) != 1:
            raise RegistryError(
                f"{version.name} version {version.version} has {len(found)} files {HANDOFF_FILE} "
                "instead of one; it was not registered by this project"
            )
        return whole, found[0].parent

    def _settled(self, version: Version) -> None:
        name, number = version.name, str(version.version)
        self._call(
            f"untag {name} version {number}",
            lambda c: c.delete_model_version_tag(name, number, _PENDING),
        )

    @abc.abstractmethod
    def _fetch(self, version: Version, folder: Path) -> Path:
        """Fetch the whole model of a version below ``folder``; returns where it lies."""


def _check(version: Version, whole: Path, folder: Path, pending: Mapping[str, str]) -> None:
    """Refuse files that neither the hand-off nor an unfinished change accounts for."""
    body: dict[str, Any] = read_json(folder / HANDOFF_FILE)
    if body.get("schema_version") != SCHEMA_VERSION:
        raise RegistryError(
            f"{version.name} version {version.version}: handoff.json has schema version "
            f"{body.get('schema_version')!r}, known is {SCHEMA_VERSION}"
        )
    place = folder.relative_to(whole).as_posix()
    found, named = file_shas(folder), body["files"]
    wrong = sorted(
        name
        for name in set(found) | set(named)
        if found.get(name) != named.get(name) and found.get(name) != pending.get(f"{place}/{name}")
    )
    if wrong:
        raise RegistryError(
            f"{version.name} version {version.version}: files that are missing, altered or not "
            f"named in handoff.json: {', '.join(wrong)}; register the model again"
        )


def _shas(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its relative POSIX path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                name = path.relative_to(folder).as_posix()
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
