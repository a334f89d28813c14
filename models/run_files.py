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
        known = self._places(versions)
        return [self._expected(version, known.get(version.run_id), path) for version in versions]

    def _places(self, versions: Sequence[Version]) -> dict[str, str]:
        """By run where its files are, from one question for all of them."""
        names, runs = {v.name for v in versions}, dict.fromkeys(v.run_id for v in versions)
        wanted = ", ".join(f"'{run_id}'" for run_id in runs)

        def found(client: Any) -> dict[str, str]:
            experiments = [client.get_experiment_by_name(name) for name in names]
            ids = [known.experiment_id for known in experiments if known is not None]
            said = f"attributes.run_id IN ({wanted})"
            rows = client.search_runs(ids, said, max_results=len(runs)) if ids else []
            return {row.info.run_id: str(row.info.artifact_uri) for row in rows}

        return self._call(f"read runs of {', '.join(names)}", found)

    def _expected(self, version: Version, place: str | None, path: str) -> str | None:
        """The text that is very likely there, without looking first; else the careful way."""
        if place is None:
            return self.run_text(version, path)
        files = self._files_at(place)
        try:
            return self._call(f"send {path}", lambda _: _sent(files, path))
        except RegistryUnavailableError:
            raise
        except RegistryError:
            return self.run_text(version, path)  # tells what is missing from what is refused


def _sent(files: Any, path: str) -> str:
    with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
        return Path(files.download_artifacts(path, scratch)).read_text(encoding="utf-8")
