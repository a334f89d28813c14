"""What the registry returns, and the checks and texts that need no MLflow."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import pyarrow as pa

from models.base import SPACE_COLUMN, FeatureSpec, Model

if TYPE_CHECKING:  # who only fetches a version draws nothing
    from matplotlib.figure import Figure

__all__ = [
    "EVALUATION_FOLDER",
    "Artefact",
    "Loaded",
    "RegistryError",
    "RegistryUnavailableError",
    "Version",
    "artefact_url",
    "beside_database",
    "checked_name",
    "checked_run_key",
    "checked_time",
    "is_http",
    "requirements",
    "signature_columns",
    "version_tags",
    "with_aliases",
    "write_artefacts",
]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2})?")
_RUN_KEY: Final = re.compile(r"[A-Za-z0-9_.:@|+=-]+")

EVALUATION_FOLDER: Final = "evaluation"
"""Of a version's run: where its evaluations put their files."""

Artefact: TypeAlias = "Path | Figure | str"
M = TypeVar("M", bound=Model)


class RegistryError(RuntimeError):
    """The registry cannot be reached, or what was asked of it cannot be done."""


class RegistryUnavailableError(RegistryError):
    """The registry does not answer, which says nothing of what was asked for."""


@dataclass(frozen=True)
class Version:
    """One registered version; ``url`` is its page, empty without a server."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    url: str
    model_id: str


def artefact_url(run_url: str | None, path: str) -> str | None:
    """Where MLflow's pages show the file ``path`` of the run at ``run_url``; None without one."""
    return f"{run_url}/artifacts/{path}" if run_url else None


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A version brought back: the model, what it reads, and its hand-off.

    ``optimizer_state`` is None for a model that has no optimizer, as trees have none.
    """

    model: M
    spec: FeatureSpec
    handoff: Mapping[str, Any]
    version: Version
    optimizer_state: Mapping[str, Any] | None = None


def checked_name(name: str) -> str:
    """``name`` unchanged when it can name a registered model.

    Raises:
        RegistryError: otherwise.
    """
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{name!r} cannot name a model; use letters, digits, '_', '.' and '-'")
    return name


def checked_run_key(run_key: str) -> str:
    """``run_key`` unchanged when it can be searched for.

    Raises:
        RegistryError: otherwise.
    """
    if not _RUN_KEY.fullmatch(run_key):
        raise RegistryError(
            f"{run_key!r} cannot be a run key; use letters, digits and any of _.:@|+=-"
        )
    return run_key


def checked_time(time: str) -> str:
    """``time`` unchanged when it is a day or an hour.

    Raises:
        RegistryError: otherwise.
    """
    if not _TIME.fullmatch(time):
        raise RegistryError(f"{time!r} is no time; write 2026-11-11, or 2026-11-11T05")
    return time


def version_tags(
    run_key: str, model: Model, tags: Mapping[str, str], handoff: Mapping[str, Any]
) -> dict[str, str]:
    """The tags of a version: the caller's, and those that follow from the model and hand-off.

    Raises:
        RegistryError: when ``code_version`` is missing, or a tag says something else.
    """
    missing = [key for key in ("data_hour", "iceberg_snapshots") if key not in handoff]
    missing += [key for key in ("code_version",) if key not in tags]
    if missing:
        raise RegistryError(f"a version needs {', '.join(missing)} (hand-off and tags)")
    own = {
        "run_key": run_key,
        "data_hour": str(handoff["data_hour"]),
        "iceberg_snapshots": json.dumps(handoff["iceberg_snapshots"], sort_keys=True),
        "feature_spec_sha": model.spec.sha,
        "tree_version": model.tree_version,
    }
    other = sorted(key for key in own if str(tags.get(key, own[key])) != own[key])
    if other:
        raise RegistryError(f"tags that contradict the model or its hand-off: {', '.join(other)}")
    return {**{key: str(value) for key, value in tags.items()}, **own}


def requirements(model: Model) -> list[str]:
    """The packages that loading a version needs, pinned to those installed here.

    What a build adds to a number, as in 2.13.0+cpu, is left out.
    """
    names = ("mlflow", "numpy", "pyarrow", *model.packages)
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]


def write_artefacts(folder: Path, artefacts: Mapping[str, Artefact]) -> None:
    """Write figures as ``<name>.png``, copy files, and write texts under their own name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, artefact in artefacts.items():
        if isinstance(artefact, str):
            (folder / name).write_text(artefact, encoding="utf-8")
        elif isinstance(artefact, Path):
            target = name if Path(name).suffix else f"{name}{artefact.suffix}"
            (folder / target).write_bytes(artefact.read_bytes())
        else:
            artefact.savefig(folder / f"{name.removesuffix('.png')}.png", dpi=100)


def is_http(uri: str) -> bool:
    """Whether ``uri`` is the address of a server, and not of a database."""
    return uri.startswith(("http://", "https://"))


def beside_database(uri: str) -> str | None:
    """Where a SQLite tracking store keeps its artefacts: beside the database file.

    MLflow's own default would be the current folder. None for any other address: there the server
    says where.
    """
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()


def with_aliases(version: Version, aliases: Mapping[str, str]) -> Version:
    """``version`` with those of ``aliases``, by name the number they point to, that are its own."""
    number = str(version.version)
    mine = sorted(alias for alias, target in aliases.items() if str(target) == number)
    return dataclasses.replace(version, aliases=tuple(mine))


def signature_columns(example: pa.Table, spec: FeatureSpec) -> list[tuple[str, str, bool, bool]]:
    """(name, MLflow's name of the type, whether a list of it, whether every row has one) of every
    column of ``spec``.

    MLflow reads frames of pandas, where a null makes an integer a double, so 64-bit integers are
    ``long`` only where the example has no null.
    """
    found = []
    for name in spec.dense:
        column = example.column(name)
        kind = "double"
        if pa.types.is_boolean(column.type):
            kind = "boolean"
        elif column.type in (pa.int64(), pa.uint32(), pa.uint64()) and not column.null_count:
            kind = "long"
        found.append((name, kind, False, True))
    found += [
        (sparse.name, "double" if sparse.kind == "integer" else "string", False, True)
        for sparse in spec.sparse
    ]
    for sequence in spec.sequences:
        of = example.schema.field(sequence.name).type.value_type
        numbers = "float" if pa.types.is_floating(of) else "long"
        found.append((sequence.name, numbers if sequence.kind == "log" else "string", True, True))
    found += [(column.name, "float", True, False) for column in spec.pretrained]
    return found + [(name, "string", False, True) for name in spec.columns if name == SPACE_COLUMN]
