"""Tags that keep the snapshots a model was trained from: how they are named, whose they are."""

from __future__ import annotations

import json
import re
from typing import Final

from models.registry import Registry

__all__ = ["Owners", "snapshot_tag"]

_LABEL: Final = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)-\d{4}-\d{2}-\d{2}T\d{2}-(?P<snapshot>\d+)")


def snapshot_tag(name: str, hour: str, snapshot_id: int) -> str:
    """The tag of a snapshot that a model of registered name ``name`` and run ``hour`` reads."""
    return f"{name}-{hour}-{snapshot_id}"


class Owners:
    """Which tags no model version needs any more; asks the registry once per name."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._needed: dict[str, set[int]] = {}

    def orphaned(self, label: str) -> bool:
        """Whether ``label`` is a model's tag and no version of that name has its snapshot.

        Tags that somebody made by hand are nobody's, and stay.
        """
        tag = _LABEL.fullmatch(label)
        return tag is not None and int(tag["snapshot"]) not in self._snapshots(tag["name"])

    def _snapshots(self, name: str) -> set[int]:
        if name not in self._needed:
            lineages = [
                json.loads(version.tags.get("iceberg_snapshots", "{}"))
                for version in self._registry.versions(name)
            ]
            self._needed[name] = {int(value) for known in lineages for value in known.values()}
        return self._needed[name]
