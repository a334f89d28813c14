"""The model registry on MLflow: the one file that imports it."""

from __future__ import annotations

import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from models.base import Model
from models.registered_names import aliases_of, registered
from models.retry import Backoff, mlflow_environment, shown_address
from models.revision import Revision
from models.versions import (
    Artefact,
    Loaded,
    RegistryError,
    RegistryUnavailableError,
    Version,
    beside_database,
    checked_name,
    is_http,
    requirements,
    signature_columns,
    with_aliases,
    write_artefacts,
)

# Read by MLflow on import or on its first call.
for _key, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}.items():
    os.environ.setdefault(_key, _value)

with warnings.catch_warnings():
    # Its own type hints, which it warns about while it is imported.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    import mlflow
    from mlflow.entities import LoggedModelOutput, Metric, Param, RunStatus
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model as MlflowModel
    from mlflow.models import ModelSignature, set_model
    from mlflow.pyfunc.model import PythonModel
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

__all__ = ["Loaded", "PythonModel", "Registry", "RegistryError", "Version", "set_model"]

_T = TypeVar("_T")
_CODE: Final = "pyfunc_{}.py"
_PARAMETERS: Final = {str: "string", int: "long", bool: "boolean"}
_PARAMS_AT_ONCE: Final = 100
_PARAM_LENGTH: Final = 6000
_TRANSIENT: Final = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_GONE: Final = "RESOURCE_DOES_NOT_EXIST"
_NO_ALIAS: Final = (_GONE, "INVALID_PARAMETER_VALUE")
_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
_PAGE: Final = 1000
_OLDEST: Final = ["version_number ASC"]


class Registry(Revision):
    """Versions of rankers on an MLflow server, or on a database for tests.

    ``retries`` and ``backoff`` (seconds before the first retry, then doubling) bound how long an
    unreachable server is waited for; ``timeout`` is that of one request, in whole seconds.
    ``artifact_root`` is where new experiments keep their files; by default the server decides,
    and a SQLite store keeps them beside its file.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        retries: int = 4,
        backoff: float = 1.0,
        timeout: int = 60,
        artifact_root: str | None = None,
    ) -> None:
        if not tracking_uri:
            raise RegistryError(
                "no address of an MLflow server; set MLFLOW_TRACKING_URI or pass --tracking-uri"
            )
        self.tracking_uri = tracking_uri.rstrip("/") if is_http(tracking_uri) else tracking_uri
        self._backoff = Backoff(retries, backoff)
        self._timeout = timeout
        self._artifact_root = artifact_root or beside_database(tracking_uri)
        self._client: mlflow.MlflowClient | None = None

    def _call(self, what: str, function: Callable[[mlflow.MlflowClient], _T]) -> _T:
        """``function`` on the client, with retries of our own instead of MLflow's minutes."""
        started = time.monotonic()

        def once() -> _T:
            if self._client is None:
                uri = self.tracking_uri
                self._client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            with mlflow_environment(self.tracking_uri, self._timeout):
                return function(self._client)

        try:
            return self._backoff.call(once, _transient)
        except (MlflowException, OSError) as error:
            if not _transient(error):
                raise RegistryError(f"MLflow refused to {what}: {error}") from error
            raise RegistryUnavailableError(
                f"MLflow at {shown_address(self.tracking_uri)} did not {what} "
                f"({self._backoff.retries + 1} tries in {time.monotonic() - started:.0f} s; "
                f"{str(error).splitlines()[0]}). Start the server, or point MLFLOW_TRACKING_URI "
                "or --tracking-uri to one that runs, and run the same command again."
            ) from error

    def _if_there(
        self,
        what: str,
        function: Callable[[mlflow.MlflowClient], _T],
        absent: Sequence[str] = (_GONE,),
    ) -> _T | None:
        def tried(client: mlflow.MlflowClient) -> _T | None:
            try:
                return function(client)
            except MlflowException as error:
                if error.error_code not in absent:
                    raise
                return None

        return self._call(what, tried)

    def _files_at(self, location: str) -> Any:
        return get_artifact_repository(location, tracking_uri=self.tracking_uri)

    def get(self, name: str, version: int) -> Version:
        """One version by its number; RegistryError when there is none."""
        what = f"find version {version} of {name}"
        return self._version(self._call(what, lambda c: c.get_model_version(name, str(version))))

    def alias(self, name: str, alias: str) -> Version | None:
        """The version that ``alias`` of ``name`` points to, if any."""
        what = f"read alias {alias} of {name}"
        found = self._if_there(what, lambda c: c.get_model_version_by_alias(name, alias), _NO_ALIAS)
        return None if found is None else self._version(found)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point ``alias`` of ``name`` to ``version``."""
        self._call(
            f"point alias {alias} of {name} to version {version}",
            lambda c: c.set_registered_model_alias(name, alias, str(version)),
        )

    def run_url(self, run_id: str) -> str | None:
        """The page of a run; None without a server. Of a file of the run, see ``artefact_url``."""
        if not is_http(self.tracking_uri):
            return None
        run = self._call(f"read run {run_id}", lambda c: c.get_run(run_id))
        return f"{self.tracking_uri}/#/experiments/{run.info.experiment_id}/runs/{run_id}"

    def _fetch(self, version: Version, folder: Path) -> Path:
        fetched = self._call(
            f"send {version.name} version {version.version}",
            lambda _: mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.model_id}",
                dst_path=str(folder),
                tracking_uri=self.tracking_uri,
            ),
        )
        return Path(fetched)

    def _search(self, name: str, condition: str = "") -> list[Version]:
        query = f"name = '{checked_name(name)}'" + (f" and {condition}" if condition else "")

        def pages(client: mlflow.MlflowClient) -> list[Version]:
            found: dict[int, Version] = {}
            token: str | None = ""
            while token is not None:
                # Oldest first: one that is new, or changed, moves none to another page.
                page = client.search_model_versions(query, _PAGE, _OLDEST, token or None)
                found |= {int(item.version): self._version(item) for item in page}
                token = page.token or None
            # A search leaves the aliases out.
            aliases = aliases_of(client, name) if found else {}
            return [with_aliases(item, aliases) for item in found.values()]

        return self._call(f"list versions of {name}", pages)

    def _version(self, found: ModelVersion) -> Version:
        url = ""
        if is_http(self.tracking_uri):
            url = f"{self.tracking_uri}/#/models/{found.name}/versions/{found.version}"
        return Version(
            name=found.name,
            version=int(found.version),
            run_id=str(found.run_id),
            tags=dict(found.tags),
            aliases=tuple(found.aliases),
            url=url,
            model_id=str(found.model_id or str(found.source).removeprefix("models:/")),
        )

    def _open_experiment(self, name: str) -> str:
        root = self._artifact_root

        def read(client: mlflow.MlflowClient) -> str:
            found = client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            try:
                return str(client.create_experiment(name, root and f"{root}/{name}"))
            except MlflowException as error:
                found = client.get_experiment_by_name(name)  # somebody else was faster
                if error.error_code != _EXISTS or found is None:
                    raise
                return str(found.experiment_id)

        return self._call(f"open experiment {name}", read)

    def _runs(self, experiment: str, run_key: str) -> list[str]:
        found = self._call(
            f"look for runs of {run_key}",
            lambda c: c.search_runs([experiment], f"tags.run_key = '{run_key}'"),
        )
        return [str(run.info.run_id) for run in found]

    def _start_run(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        description: str,
    ) -> str:
        shown = {key: tags[key] for key in ("run_key", "data_hour", "code_version")}
        shown["mlflow.note.content"] = description
        title = f"{name} {tags['data_hour']}"
        run = self._call(
            f"start a run of {name}",
            lambda c: c.create_run(experiment, tags=shown, run_name=title),
        )
        run_id = str(run.info.run_id)
        entries = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in params.items()]

        def log(client: mlflow.MlflowClient) -> None:
            for first in range(0, len(entries), _PARAMS_AT_ONCE):
                client.log_batch(run_id, params=entries[first : first + _PARAMS_AT_ONCE])

        self._call(f"log parameters of run {run_id}", log)
        return run_id

    def _new_model(
        self, experiment: str, run_id: str, name: str, kind: str, params: Mapping[str, Any]
    ) -> str:
        shown = {key: str(value)[:_PARAM_LENGTH] for key, value in params.items()}

        def create(client: mlflow.MlflowClient) -> str:
            model = client.create_logged_model(
                experiment, name, run_id, params=shown, model_type=kind
            )
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            return str(model.model_id)

        return self._call(f"make room for a model of {name}", create)

    def _save_model(
        self, model_id: str, run_id: str, packed: Path, model: Model, example: pa.Table
    ) -> None:
        def send(client: mlflow.MlflowClient) -> None:
            with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
                local = Path(scratch) / "model"
                mlflow.pyfunc.save_model(
                    local,
                    python_model=str(Path(__file__).with_name(_CODE.format(model.kind))),
                    artifacts={model.kind: str(packed)},
                    mlflow_model=MlflowModel(
                        artifact_path=client.get_logged_model(model_id).artifact_location,
                        run_id=run_id,
                        model_uuid=model_id,
                        model_id=model_id,
                    ),
                    signature=_signature(example, model),
                    input_example=example.to_pandas(),
                    pip_requirements=requirements(model),
                )
                client.log_model_artifacts(model_id, str(local))
            client.finalize_logged_model(model_id, "READY")

        self._call(f"take the files of model {model_id}", send)

    def _log_metrics(
        self, run_id: str, model_id: str | None, metrics: Mapping[str, float], step: int = 0
    ) -> None:
        now = time.time_ns() // 1_000_000
        entries = [
            Metric(key, float(value), now, step, model_id=model_id)
            for key, value in metrics.items()
            if math.isfinite(value)
        ]
        self._call(f"log metrics of run {run_id}", lambda c: c.log_batch(run_id, metrics=entries))

    def _upload(self, run_id: str, folder: str, artefacts: Mapping[str, Artefact]) -> None:
        if not artefacts:
            return
        with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
            write_artefacts(Path(scratch), artefacts)
            self._call(
                f"take files of run {run_id}",
                lambda c: c.log_artifacts(run_id, scratch, folder or None),
            )

    def _finish_run(self, run_id: str) -> None:
        status = RunStatus.to_string(RunStatus.FINISHED)
        self._call(f"finish run {run_id}", lambda c: c.set_terminated(run_id, status))

    def _discard(self, experiment: str, run_id: str) -> None:
        def delete(client: mlflow.MlflowClient) -> None:
            query = f"source_run_id = '{run_id}'"
            for model in client.search_logged_models([experiment], query):
                client.delete_logged_model(model.model_id)
            client.set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED))
            client.delete_run(run_id)

        self._call(f"delete run {run_id}", delete)

    def _create_version(
        self,
        name: str,
        run_key: str,
        run_id: str,
        model_id: str,
        tags: Mapping[str, str],
        description: str,
    ) -> Version:
        condition = self._of_key(run_key)

        def create(client: mlflow.MlflowClient) -> None:
            _create_name(client, name)
            # A try whose answer was lost may have created it.
            if not client.search_model_versions(f"name = '{name}' and {condition}"):
                client.create_model_version(
                    name,
                    f"models:/{model_id}",
                    run_id,
                    tags=dict(tags),
                    description=description,
                    model_id=model_id,
                )

        self._call(f"create a version of {name}", create)
        first, *later = self._search(name, condition)
        for version in later:
            # Two processes registered at once: both keep the first.
            self._delete_version(version)
        return first

    def _set_tag(self, version: Version, key: str, value: str) -> None:
        number = str(version.version)
        self._call(
            f"tag {version.name} version {number}",
            lambda c: c.set_model_version_tag(version.name, number, key, value),
        )


def _create_name(client: mlflow.MlflowClient, name: str) -> None:
    """Create the registered model, unless it is there."""
    if registered(client, name) is not None:
        return
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != _EXISTS:
            raise


def _transient(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in _TRANSIENT
    return isinstance(error, OSError)


def _signature(example: pa.Table, model: Model) -> ModelSignature:
    """Types of the columns that a model reads, and of what comes out."""
    read = [_column(*column) for column in signature_columns(example, model.spec)]
    made = [_column(out.name, out.kind, out.many) for out in model.returns()]
    taken = [ParamSpec(k, _PARAMETERS[type(v)], v) for k, v in model.options.items()]
    return ModelSignature(Schema(read), Schema(made), ParamSchema(taken))


def _column(name: str, kind: str, many: bool, required: bool = True) -> ColSpec | TensorSpec:
    return ColSpec(Array(DataType[kind]) if many else DataType[kind], name, required)
