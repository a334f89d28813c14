"""Listing a table's folder while others write in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feature_store.unreferenced import _listed


def test_a_file_that_vanishes_meanwhile_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "metadata"
    folder.mkdir()
    for name in ("a.json", "b.json", "c.json"):
        (folder / name).touch()
    lstat = Path.lstat

    def vanishing(path: Path) -> os.stat_result:
        if path.name == "b.json":
            path.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", vanishing)
    listed = _listed(str(tmp_path), before=0)
    assert sorted(listed[str(folder)].files) == ["a.json", "c.json"]
    assert listed[str(tmp_path)].folders == [str(folder)]
