"""Reading back what a version's run keeps beside the model: pages, plots and their numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from models.removal import Removal
from models.versions import RegistryError, RegistryUnavailableError, Version

__all__ = ["RunFiles"]


class RunFiles(Removal):
    """Files of runs, on MLflow's client, which a subclass supplies."""

    def run_text(self, version: Version, path: str) -> str | None:
        """The text that the run of ``version`` keeps at ``path``; None where it keeps none.

        Raises:
            RegistryError: when the registry does not answer, or refuses.
        """
        run_id = version.run_id
        run = self._call(f"read run {run_id}", lambda c: c.get_run(run_id))
        files = self._files_at(str(run.info.artifact_uri))

        def read(_: Any) -> str | None:
            # Stores say in different ways that a file is missing; all of them can list.
            listed = files.list_artifacts(str(PurePosixPath(path).parent))
            return _sent(files, path) if path in {file.path for file in listed} else None

        return self._call(f"send {path} of run {run_id}", read)

    def run_texts(self, versions: Sequence[Version], path: str) -> list[str | None]:
        """As :meth:`run_text`, of each of ``versions`` of one name, most of which keep it."""
        roots = {name: self._root(name) for name in {version.name for version in versions}}
        return [self._expected(version, roots[version.name], path) for version in versions]

    def _root(self, name: str) -> str | None:
        """Where runs of the experiment of ``name`` keep files, each in a folder of its own."""
        what = f"read experiment {name}"
        kept = self._call(what, lambda c: c.get_experiment_by_name(name))
        return None if kept is None else str(kept.artifact_location)

    def _expected(self, version: Version, root: str | None, path: str) -> str | None:
        """The text where runs of the experiment keep theirs, without asking first; else the
        careful way."""
        if root is None:
            return self.run_text(version, path)
        files = self._files_at(f"{root}/{version.run_id}/artifacts")
        try:
            return self._call(f"send {path}", lambda _: _sent(files, path))
        except RegistryUnavailableError:
            raise
        except RegistryError:
            return self.run_text(version, path)  # tells what is missing from what is refused


def _sent(files: Any, path: str) -> str:
    with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
        return Path(files.download_artifacts(path, scratch)).read_text(encoding="utf-8")
