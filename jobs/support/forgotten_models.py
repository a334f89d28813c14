"""Users forgotten by models: what artefacts hold of them goes, and versions say what they lost."""

from __future__ import annotations

import datetime as dt
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.embedding_sets import TABLE as EMBEDDINGS_TABLE
from feature_store.schemas import TABLES
from feature_store.table_spec import USER_COLUMN, USER_NODE
from feature_store.tables import Store
from jobs.support.embedding_page import NEIGHBOURS
from jobs.support.page import page
from jobs.support.pruning import model_names
from models import EMBEDDINGS, load_model
from models.base import CONFIG_FILE, read_json, write_json
from models.deep_files import forget_texts
from models.handoff import EXAMPLE_FILE, HANDOFF_FILE
from models.metapath2vec import Metapath2Vec
from models.registry import Registry, RegistryError, Version

__all__ = ["FORGOTTEN_TAG", "ForgottenModels", "forget_files"]

FORGOTTEN_TAG: Final = "forgotten_rows"
"""Of a version: by when users were forgotten, how many rows of theirs it was fitted on."""

_PAGE: Final = f"plots/{NEIGHBOURS}"
_SHOWN: Final = ("input_example.json", "serving_input_example.json")
"""Copies of the input example that MLflow shows and serves."""

_NODES: Final = TABLES[EMBEDDINGS_TABLE].users.nodes[0]


@dataclass
class ForgottenModels:
    """The registered versions of a store's models, as far as they have to do with some users.

    Attributes:
        rows: by table and hour, how many rows were theirs.
        since: when they were forgotten.
        dry: change nothing.
        unread: why files of versions could not be looked into.
        concerned: versions by name whose snapshots went, ``rewritten`` those that held an
            identifier in their files.
    """

    store: Store
    registry: Registry
    users: Sequence[str]
    since: dt.datetime
    say: Callable[[str], None]
    dry: bool = False
    unread: dict[tuple[str, int], str] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    concerned: dict[str, set[int]] = field(default_factory=dict)
    rewritten: dict[str, set[int]] = field(default_factory=dict)
    _clean: set[tuple[str, int]] = field(default_factory=set)

    def versions(self) -> Iterator[Version]:
        """Every version of every name, a name at a time."""
        for name in model_names(self.store):
            yield from self.registry.versions(name)

    def tell(self, table: str, snapshots: frozenset[int]) -> None:
        """Say of the versions that were fitted on ``snapshots`` of a table, which are to go, how
        many rows they were fitted on that nobody can read any more."""
        for version in self.versions():
            lineage = json.loads(version.tags.get("iceberg_snapshots", "{}"))
            if lineage.get(table) is None or int(lineage[table]) not in snapshots:
                continue
            self.concerned.setdefault(version.name, set()).add(version.version)
            key, count = self.since.isoformat(timespec="seconds"), self._fitted_on(version, lineage)
            told: dict[str, int] = json.loads(version.tags.get(FORGOTTEN_TAG, "{}"))
            if not self.dry and told.get(key, -1) < count:
                value = json.dumps({**told, key: count}, sort_keys=True)
                self.registry.mark(version, FORGOTTEN_TAG, value)

    def _fitted_on(self, version: Version, lineage: Iterable[str]) -> int:
        try:
            first, last = self.registry.handoff(version)["trained_hours"]
        except RegistryError as error:  # its data goes all the same
            self.say(f"{version.name} version {version.version}: {error}")
            first, last = "", version.tags.get("data_hour", "")
        return sum(
            count
            for table in lineage
            for hour, count in self.rows.get(table, {}).items()
            if first <= hour <= last
        )

    def scrub(self) -> int:
        """Take the users out of the files of every version; how many held any of them."""
        found = 0
        for version in self.versions():
            place = version.name, version.version
            if place in self._clean or place in self.unread:
                continue
            try:
                scrubbed = self._scrubbed(version)
            except RegistryError as error:  # everything else goes all the same
                self.unread[place] = str(error)
                self.say(f"{version.name} version {version.version} was not looked into: {error}")
                continue
            if scrubbed:
                found += 1
                self.rewritten.setdefault(version.name, set()).add(version.version)
                self.say(f"{version.name} version {version.version}: files without them")
            self._clean.add(place)
        return found

    def _scrubbed(self, version: Version) -> bool:
        text = self.registry.run_text(version, _PAGE)
        named = text is not None and any(_names(text, user) for user in self.users)
        if named and not self.dry:
            words = "This page named somebody who was forgotten since. Embed the day again for one."
            self.registry.replace_text(version, _PAGE, page("Node embeddings", words))

        def change(whole: Path, folder: Path) -> None:
            forget_files(whole, folder, self.users)

        return self.registry.revise(version, change, self.dry) or named


def forget_files(whole: Path, folder: Path, users: Sequence[str]) -> None:
    """Take ``users`` out of a version's artefact ``folder`` and of the ``whole`` model around
    it."""
    spare: pa.Table | None = None
    if read_json(folder / CONFIG_FILE)["family"] in EMBEDDINGS:
        model = load_model(folder)
        if isinstance(model, Metapath2Vec):
            kind, name = _NODES
            nodes = pa.table({kind: [USER_NODE] * len(users), name: list(users)})
            gone = model.forget(nodes)
            spare = model.nodes.select([kind, name]).slice(0, 1)
            if gone:
                model.save(folder)
                handoff = read_json(folder / HANDOFF_FILE)
                write_json(folder / HANDOFF_FILE, {**handoff, "nodes": model.counts()})
    forget_texts(folder, USER_COLUMN, users)
    _forget_examples(whole, folder, users, spare)


def _forget_examples(
    whole: Path, folder: Path, users: Sequence[str], spare: pa.Table | None
) -> None:
    """Leave the users' rows out of a version's examples; a ``spare`` one, or one without values,
    stands for them when there is no other."""
    example = pq.read_table(folder / EXAMPLE_FILE)
    theirs = _theirs(example, users)
    if not any(theirs):
        return
    kept = example.filter(pa.array([not mine for mine in theirs]))
    if not kept.num_rows:
        kept = _blank(example.schema) if spare is None else spare.cast(example.schema)
    pq.write_table(kept, folder / EXAMPLE_FILE)
    for name in _SHOWN:
        if (whole / name).is_file():
            body = json.loads((whole / name).read_text(encoding="utf-8"))
            split: dict[str, Any] = body.get("dataframe_split", body)
            rows = [row for row, mine in zip(split["data"], theirs, strict=True) if not mine]
            split["data"] = rows or [list(row.values()) for row in kept.to_pylist()]
            if "index" in split:
                split["index"] = list(range(len(split["data"])))
            (whole / name).write_text(json.dumps(body), encoding="utf-8")


def _theirs(example: pa.Table, users: Sequence[str]) -> list[bool]:
    wanted = pa.array(users, pa.string())
    if USER_COLUMN in example.column_names:
        mine = pc.is_in(example[USER_COLUMN].cast(pa.string()), value_set=wanted)
    elif set(_NODES) <= set(example.column_names):
        kind, name = _NODES
        mine = pc.and_(
            pc.equal(example[kind], USER_NODE), pc.is_in(example[name], value_set=wanted)
        )
    else:
        return [False] * example.num_rows
    return [bool(value) for value in mine.to_pylist()]


def _blank(schema: pa.Schema) -> pa.Table:
    """A row that says nothing: nulls, and lists without elements."""
    lists = {of.name for of in schema if pa.types.is_list(of.type)}
    row: dict[str, Any] = {of.name: [] if of.name in lists else None for of in schema}
    return pa.Table.from_pylist([row], schema=schema)


def _names(text: str, user: str) -> bool:
    """Whether a page names ``user``, by itself and not as a part of another name."""
    return re.search(rf"(?<![\w-]){re.escape(html.escape(user))}(?![\w-])", text) is not None
