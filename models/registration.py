"""How a version comes into being and is brought back, whatever store keeps it.

A version is created last, in one call, with all its tags. A process killed before that leaves a
run but no version, and the next registration under the same run key clears the run away.
"""

from __future__ import annotations

import abc
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models import load_model, load_ranker
from models.base import FeatureSpec, Model, ModelError, Ranker
from models.handoff import EXAMPLE_FILE, HANDOFF_FILE, pack, verify
from models.versions import (
    EVALUATION_FOLDER,
    Artefact,
    Loaded,
    M,
    RegistryError,
    Version,
    checked_run_key,
    checked_time,
    version_tags,
)

__all__ = ["RegistryBase"]


class RegistryBase(abc.ABC):
    """The registry's rules on top of a store's single steps, which a subclass supplies."""

    # What users call ---------------------------------------------------------------------------

    def versions(self, name: str) -> list[Version]:
        """Every version of ``name``, oldest first; of years of hours it takes seconds."""
        return self._search(name)

    def of_time(self, name: str, tag: str, time: str) -> list[Version]:
        """The versions of ``name`` whose ``tag``, an hour, lies in ``time``, oldest first.

        Args:
            time: a UTC day, ``2026-11-11``, or an hour, ``2026-11-11T05``.

        Raises:
            RegistryError: for a time of another form.
        """
        return self._search(name, f"tags.{tag} LIKE '{checked_time(time)}%'")

    def find(self, name: str, run_key: str) -> Version | None:
        """The version of ``name`` that was registered under ``run_key``, if there is one."""
        found = self._search(name, self._of_key(run_key))
        return found[0] if found else None

    @abc.abstractmethod
    def get(self, name: str, version: int) -> Version:
        """One version by its number; RegistryError when there is none."""

    @abc.abstractmethod
    def alias(self, name: str, alias: str) -> Version | None:
        """The version that ``alias`` of ``name`` points to, if any."""

    @abc.abstractmethod
    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point ``alias`` of ``name`` to ``version``."""

    @abc.abstractmethod
    def run_url(self, run_id: str) -> str | None:
        """The page of a run; None without a server."""

    @abc.abstractmethod
    def download(self, version: Version, folder: Path) -> Path:
        """Fetch the artefact folder of a version below ``folder``; returns where it lies."""

    def load(self, name: str, version: int | str) -> Loaded[Ranker]:
        """The ranker of a version number, or of an alias, its files checked against their hashes.

        Raises:
            RegistryError: when there is no such version, it is no ranker, or its files are not
                what was registered.
        """
        return self._load(name, version, load_ranker)

    def load_model(self, name: str, version: int | str) -> Loaded[Model]:
        """As :meth:`load`, of a model of any kind."""
        return self._load(name, version, load_model)

    def _load(self, name: str, version: int | str, read: Callable[[Path], M]) -> Loaded[M]:
        found = self.resolve(name, version)
        with self._fetched(found) as (path, handoff):
            model = read(path)
        return Loaded(model, model.spec, handoff, found, model.optimizer_state)

    def resolve(self, name: str, version: int | str) -> Version:
        """The version of a number, or of an alias; RegistryError when there is none."""
        by_number = isinstance(version, int) or version.isdigit()
        found = self.get(name, int(version)) if by_number else self.alias(name, str(version))
        if found is None:
            known = [item.version for item in self.versions(name)]
            raise RegistryError(f"{name} has no alias {version!r}; its versions are {known}")
        return found

    def handoff(self, version: Version) -> dict[str, Any]:
        """What ``handoff.json`` of a version says.

        Raises:
            RegistryError: when its files are not what was registered.
        """
        with self._fetched(version) as (_, body):
            return body

    def input_example(self, version: Version) -> pa.Table:
        """The rows registered with a version as an example, with the types they had in Arrow.

        Raises:
            RegistryError: when its files are not what was registered.
        """
        with self._fetched(version) as (path, _):
            return pq.read_table(path / EXAMPLE_FILE)

    @contextlib.contextmanager
    def _fetched(self, version: Version) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A version's artefact folder, checked, for as long as the block lasts; its hand-off."""
        with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
            path = self.download(version, Path(scratch))
            try:
                yield path, verify(path)
            except ModelError as error:
                raise RegistryError(f"{version.name} version {version.version}: {error}") from error

    def register(
        self,
        name: str,
        run_key: str,
        folder: Path,
        spec: FeatureSpec,
        metrics: Mapping[str, float],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        input_example: pa.Table,
        plots: Mapping[str, Artefact],
        description: str,
        guard: Callable[[], None],
        handoff: Mapping[str, Any],
        history: Mapping[str, Sequence[float]] | None = None,
    ) -> Version:
        """Register the model saved in ``folder`` once: a ``run_key`` known already is returned.

        ``tags`` must hold ``code_version``; run_key, data_hour, iceberg_snapshots,
        feature_spec_sha and tree_version are added. ``handoff`` is what :func:`models.handoff.pack`
        wants, ``history`` numbers by epoch or round. ``guard`` is called right before the version
        is created, and when MLflow refuses something: when it raises, there is no version, and the
        run is removed.

        Raises:
            RegistryError: for an unreachable server, or tags that lack or contradict something.
            ModelError: for a folder, table or hand-off that does not fit.
        """
        present = self.find(name, run_key)
        if present is not None:
            return present
        model = load_model(folder)
        if model.spec.sha != spec.sha:
            raise RegistryError(
                f"the model saved in {folder} has FeatureSpec {model.spec.sha[:12]}, not "
                f"{spec.sha[:12]}; pass the spec that it was fitted with"
            )
        spec.check(input_example)
        full_tags = version_tags(run_key, model, tags, handoff)
        experiment = self._open_experiment(name)
        self._clear_orphans(experiment, name, run_key)
        run_id = self._start_run(experiment, name, full_tags, params, description)
        try:
            model_id = self._new_model(experiment, run_id, name, model.kind, params)
            self._log_metrics(run_id, model_id, metrics)
            self._log_history(run_id, model_id, history or {})
            self._upload(run_id, "plots", plots)
            with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
                packed = Path(scratch) / model.kind
                example = input_example.select(list(spec.columns))
                pack(
                    folder,
                    packed,
                    name,
                    run_key,
                    spec,
                    metrics,
                    handoff,
                    example,
                    f"models:/{model_id}",
                )
                self._upload(run_id, "", {HANDOFF_FILE: packed / HANDOFF_FILE})
                self._save_model(model_id, run_id, packed, model, example)
            self._finish_run(run_id)
            guard()
        except BaseException as error:
            # What stopped us matters more than a clean-up that fails; a rerun clears up as well.
            with contextlib.suppress(RegistryError):
                self._discard(experiment, run_id)
            if isinstance(error, RegistryError):
                guard()  # a run that took over has cleared this one away
            raise
        return self._create_version(name, run_key, run_id, model_id, full_tags, description)

    def log_evaluation(
        self,
        version: Version,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        artefacts: Mapping[str, Artefact] | None = None,
    ) -> None:
        """Add metrics and files to the run of a version, and tags to the version itself.

        Metrics have keys like ``heldout_ndcg_at_10_click``; evaluating again replaces what is
        shown. What is not finite is left out.
        """
        self._log_metrics(version.run_id, version.model_id, metrics)
        self._upload(version.run_id, EVALUATION_FOLDER, artefacts or {})
        for key, value in (tags or {}).items():
            self._set_tag(version, key, str(value))

    def log_page(
        self,
        experiment_name: str,
        run_key: str,
        title: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        artefacts: Mapping[str, Artefact],
    ) -> str | None:
        """Log files to look at as a run without a model; a run of the same key is replaced.

        ``tags`` must hold ``data_hour`` and ``code_version``.

        Returns:
            The run's address, where the server has one.
        """
        experiment = self._open_experiment(experiment_name)
        earlier = self._runs(experiment, run_key)
        run_id = self._start_run(
            experiment, experiment_name, {**tags, "run_key": run_key}, params, title
        )
        self._log_metrics(run_id, None, metrics)
        self._upload(run_id, "", artefacts)
        self._finish_run(run_id)
        for old in earlier:
            self._discard(experiment, old)
        return self.run_url(run_id)

    def _log_history(
        self, run_id: str, model_id: str, history: Mapping[str, Sequence[float]]
    ) -> None:
        """Add numbers by step to a run and its model."""
        longest = max((len(values) for values in history.values()), default=0)
        for step in range(longest):
            there = {key: values[step] for key, values in history.items() if step < len(values)}
            self._log_metrics(run_id, model_id, there, step + 1)

    def _clear_orphans(self, experiment: str, name: str, run_key: str) -> None:
        """Remove runs of ``run_key`` that never became a version."""
        orphans = self._runs(experiment, run_key)
        if orphans:
            kept = {version.run_id for version in self._search(name, self._of_key(run_key))}
            for run_id in orphans:
                if run_id not in kept:
                    self._discard(experiment, run_id)

    def _of_key(self, run_key: str) -> str:
        """MLflow's condition for what was registered under ``run_key``."""
        return f"tags.run_key = '{checked_run_key(run_key)}'"

    # What a store supplies ---------------------------------------------------------------------

    @abc.abstractmethod
    def _search(self, name: str, condition: str = "") -> list[Version]:
        """Versions of ``name``, all of them or those that MLflow finds by ``condition``, oldest
        first."""

    @abc.abstractmethod
    def _open_experiment(self, name: str) -> str:
        """The id of the experiment that holds the runs of ``name``, created when it is new."""

    @abc.abstractmethod
    def _runs(self, experiment: str, run_key: str) -> list[str]:
        """The runs of ``run_key`` that are not deleted."""

    @abc.abstractmethod
    def _start_run(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        description: str,
    ) -> str:
        """Start a run with its parameters; returns its id."""

    @abc.abstractmethod
    def _new_model(
        self, experiment: str, run_id: str, name: str, kind: str, params: Mapping[str, Any]
    ) -> str:
        """Make room for a model's files; returns its id."""

    @abc.abstractmethod
    def _save_model(
        self, model_id: str, run_id: str, packed: Path, model: Model, example: pa.Table
    ) -> None:
        """Store the packed folder as a loadable model with signature and input example."""

    @abc.abstractmethod
    def _log_metrics(
        self, run_id: str, model_id: str | None, metrics: Mapping[str, float], step: int = 0
    ) -> None:
        """Add metrics to a run and its model."""

    @abc.abstractmethod
    def _upload(self, run_id: str, folder: str, artefacts: Mapping[str, Artefact]) -> None:
        """Add files to a run."""

    @abc.abstractmethod
    def _finish_run(self, run_id: str) -> None:
        """Mark a run as finished."""

    @abc.abstractmethod
    def _discard(self, experiment: str, run_id: str) -> None:
        """Delete a run and its models."""

    @abc.abstractmethod
    def _create_version(
        self,
        name: str,
        run_key: str,
        run_id: str,
        model_id: str,
        tags: Mapping[str, str],
        description: str,
    ) -> Version:
        """Create the version in one call; a call whose answer is lost must not give two."""

    @abc.abstractmethod
    def _set_tag(self, version: Version, key: str, value: str) -> None:
        """Set one tag of a version."""
