"""Retries with exponential backoff, the environment of a call, addresses that can be shown."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Backoff", "mlflow_environment", "shown_address"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Backoff:
    """``retries`` further tries, waiting ``first`` seconds, then twice as long each time."""

    retries: int = 4
    first: float = 1.0
    longest: float = 30.0

    def call(self, function: Callable[[], _T], transient: Callable[[Exception], bool]) -> _T:
        """What ``function`` returns, tried again while its exception is ``transient``.

        Raises:
            Exception: the last one, unchanged.
        """
        for attempt in range(self.retries):
            try:
                return function()
            except Exception as error:
                if not transient(error):
                    raise
            time.sleep(min(self.longest, self.first * 2**attempt))
        return function()


def shown_address(uri: str) -> str:
    """``uri`` without its password."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    name, _, host = parts.netloc.rpartition("@")
    user = name.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}"))


@contextlib.contextmanager
def mlflow_environment(tracking_uri: str, timeout: int) -> Iterator[None]:
    """For one call: MLflow without retries of its own, which take minutes, and at this address
    also where it makes a second client for itself."""
    limits = {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
    }
    before = {key: os.environ.get(key) for key in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
