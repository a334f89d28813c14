"""Sources: one adapter a file, every one of them in one explicit dict.

>>> sorted(SOURCES)
['kuairand', 'open_bandit', 'parquet', 'simulator', 'taobao']
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from feature_store.sources.base import DEFAULT_WINDOWS, Source, SourceError
from feature_store.sources.kuairand import KuaiRandSource
from feature_store.sources.open_bandit import OpenBanditSource
from feature_store.sources.parquet import ParquetSource
from feature_store.sources.simulator import SimulatorSource
from feature_store.sources.taobao import TaobaoSource

__all__ = ["DEFAULT_WINDOWS", "SOURCES", "Source", "SourceError", "open_source"]

SOURCES: dict[str, type[Source]] = {
    "kuairand": KuaiRandSource,
    "open_bandit": OpenBanditSource,
    "parquet": ParquetSource,
    "simulator": SimulatorSource,
    "taobao": TaobaoSource,
}


def open_source(name: str, options: Mapping[str, Any]) -> Source:
    """The source called ``name`` with the keyword ``options`` of its constructor; reads no file.

    Raises:
        SourceError: for an unknown name, an unknown option or a required option that is not given,
            naming it and the ones that there are.
    """
    if name not in SOURCES:
        raise SourceError(
            f"unknown source {name!r}; the known ones are {', '.join(sorted(SOURCES))}"
        )
    kind = SOURCES[name]
    parameters = inspect.signature(kind).parameters
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise SourceError(
            f"source {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are {', '.join(parameters)}"
        )
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and options.get(key) in (None, "")
    ]
    if missing:
        raise SourceError(
            f"source {name!r} needs the option {', '.join(map(repr, missing))}; "
            "set it under source.options in the configuration, e.g. path: data/events"
        )
    try:
        return kind(**options)
    except TypeError as error:
        raise SourceError(
            f"source {name!r}: an option has a wrong type ({error}); got {dict(options)!r}"
        ) from error
