"""Reading back what a version's run keeps beside the model: pages, plots and their numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from models.removal import Removal
from models.versions import Version

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
            if path not in {file.path for file in listed}:
                return None
            with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
                return Path(files.download_artifacts(path, scratch)).read_text(encoding="utf-8")

        return self._call(f"send {path} of run {run_id}", read)
