"""Tags that keep the snapshots a model was trained from: how they are named, whose they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from models.registry import Registry, Version

__all__ = ["Owners", "snapshot_tag", "tagged_name"]

_LABEL: Final = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)-\d{4}-\d{2}-\d{2}T\d{2}-(?P<snapshot>\d+)")


def snapshot_tag(name: str, hour: str, snapshot_id: int) -> str:
    """The tag of a snapshot that a model of registered name ``name`` and run ``hour`` reads."""
    return f"{name}-{hour}-{snapshot_id}"


def tagged_name(label: str) -> str | None:
    """The registered name that a tag was made for; None for one that somebody made by hand."""
    tag = _LABEL.fullmatch(label)
    return tag["name"] if tag is not None else None


class Owners:
    """Which tags no model version needs any more; asks the registry once per name.

    ``known`` are the versions, by name, of names that it need not be asked about.
    """

    def __init__(
        self, registry: Registry, known: Mapping[str, Iterable[Version]] | None = None
    ) -> None:
        self._registry = registry
        self._known = known or {}
        self._needed: dict[str, set[int]] = {}

    def orphaned(self, label: str) -> bool:
        """Whether ``label`` is a model's tag and no version of that name has its snapshot.

        Tags that somebody made by hand are nobody's, and stay.
        """
        tag = _LABEL.fullmatch(label)
        return tag is not None and int(tag["snapshot"]) not in self._snapshots(tag["name"])

    def _snapshots(self, name: str) -> set[int]:
        if name not in self._needed:
            known = self._known.get(name)
            versions = self._registry.versions(name) if known is None else known
            lineages = [json.loads(v.tags.get("iceberg_snapshots", "{}")) for v in versions]
            self._needed[name] = {int(value) for read in lineages for value in read.values()}
        return self._needed[name]
