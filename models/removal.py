"""How a version goes, and with it the files that nothing else needs.

The files are marked, then the version is deleted, then the files, then MLflow's entry of them. Of a
process that was killed in between the marks tell what is left to do. The run stays, with its
parameters, metrics and pages, until it is forgotten like any page: its files first, then the run.
"""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from models.registration import RegistryBase
from models.versions import Version, checked_run_key

__all__ = ["Leftover", "Removal"]

_T = TypeVar("_T")
_MARK: Final = "version_removed"
_PAGE: Final = 1000
_OLDEST: Final = ["attributes.start_time ASC"]


@dataclass(frozen=True)
class Leftover:
    """Files of a model that were marked to go: its id, and the run that made it."""

    model_id: str
    run_id: str


class Removal(RegistryBase):
    """Removing versions, in single steps on MLflow's client, which a subclass supplies."""

    def remove(self, version: Version) -> bool:
        """Delete ``version`` unless an alias points to it by now; :meth:`clear` deletes its files.

        One that is gone already counts as deleted.

        Returns:
            False when an alias points to it: it stays, and so do its files.
        """
        self._mark(version.model_id)
        if self._aliased(version):
            self._unmark(version.model_id)
            return False
        self._delete_version(version)
        return True

    def clear(self, leftover: Leftover) -> bool:
        """Delete the files of a removed version; without effect where there are none any more.

        Returns:
            False when a version needs them, be it a copy of this one under another name.
        """
        if self._needed(leftover.run_id):
            return False
        number = leftover.model_id
        model = self._if_there(f"find model {number}", lambda c: c.get_logged_model(number))
        if model is not None:
            files = self._files_at(str(model.artifact_location))
            self._call(f"delete the files of model {number}", lambda _: files.delete_artifacts())
            self._if_there(f"delete model {number}", lambda c: c.delete_logged_model(number))
        return True

    def left_over(self, name: str) -> list[Leftover]:
        """What removals of versions of ``name`` marked, and did not come to clear."""

        def pages(client: Any) -> list[Leftover]:
            experiment = client.get_experiment_by_name(name)
            found: list[Leftover] = []
            token: str | None = "" if experiment is not None else None
            while token is not None:
                page = client.search_logged_models(
                    [experiment.experiment_id], f"tags.{_MARK} = 'true'", page_token=token or None
                )
                found += [Leftover(str(m.model_id), str(m.source_run_id)) for m in page]
                token = page.token or None
            return found

        return self._call(f"list what is left of {name}", pages)

    def runs_before(self, experiment: str, instant: dt.datetime, key: str = "") -> list[str]:
        """The runs of ``experiment`` that were started before ``instant``, oldest first.

        Args:
            key: how their ``run_key`` begins; any by default.
        """
        condition = f"attributes.start_time < {int(instant.timestamp() * 1000)}"
        if key:
            condition += f" and tags.run_key LIKE '{checked_run_key(key)}%'"

        def pages(client: Any) -> list[str]:
            found = client.get_experiment_by_name(experiment)
            runs: list[str] = []
            token: str | None = "" if found is not None else None
            while token is not None:
                page = client.search_runs(
                    [found.experiment_id], condition, max_results=_PAGE, order_by=_OLDEST,
                    page_token=token or None,
                )  # fmt: skip
                runs += [str(run.info.run_id) for run in page]
                token = page.token or None
            return runs

        return self._call(f"list old runs of {experiment}", pages)

    def forget_run(self, run_id: str) -> bool:
        """Delete a run with its files, unless a version is of it; without effect once it is gone.

        MLflow marks it as deleted; its rows go with ``mlflow gc``.

        Returns:
            False when a version needs it.
        """
        if self._needed(run_id):
            return False
        run = self._if_there(f"read run {run_id}", lambda c: c.get_run(run_id))
        if run is not None:
            files = self._files_at(str(run.info.artifact_uri))
            self._call(f"delete the files of run {run_id}", lambda _: files.delete_artifacts())
            self._if_there(f"delete run {run_id}", lambda c: c.delete_run(run_id))
        return True

    # Single steps ------------------------------------------------------------------------------

    def _mark(self, model_id: str) -> None:
        def mark(client: Any) -> None:
            client.get_logged_model(model_id)  # setting a tag does not say why it could not
            client.set_logged_model_tags(model_id, {_MARK: "true"})

        self._if_there(f"mark the files of model {model_id}", mark)

    def _unmark(self, model_id: str) -> None:
        what = f"unmark the files of model {model_id}"
        self._if_there(what, lambda c: c.delete_logged_model_tag(model_id, _MARK))

    def _aliased(self, version: Version) -> bool:
        name, number = version.name, str(version.version)
        what = f"look at the aliases of {name} version {number}"
        found = self._if_there(what, lambda c: c.get_model_version(name, number))
        return found is not None and bool(found.aliases)

    def _delete_version(self, version: Version) -> None:
        name, number = version.name, str(version.version)
        what = f"delete version {number} of {name}"
        self._if_there(what, lambda c: c.delete_model_version(name, number))

    def _needed(self, run_id: str) -> bool:
        """Whether a version is of this run; a copy of a version is of the same."""
        what = f"look for versions of run {run_id}"
        return bool(self._call(what, lambda c: c.search_model_versions(f"run_id = '{run_id}'", 1)))

    @abc.abstractmethod
    def _call(self, what: str, function: Callable[[Any], _T]) -> _T:
        """``function`` on the client, tried again while the server does not answer.

        Raises:
            RegistryError: when it never does, or refuses to do ``what``.
        """

    @abc.abstractmethod
    def _if_there(
        self, what: str, function: Callable[[Any], _T], absent: Sequence[str] = ...
    ) -> _T | None:
        """As :meth:`_call`; None when what it is about does not exist, which MLflow says with one
        of the codes ``absent``."""

    @abc.abstractmethod
    def _files_at(self, location: str) -> Any:
        """MLflow's repository of the artefacts at a location."""
