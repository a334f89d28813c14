"""Does a registered version load and score in a process that knows nothing of its training?

Run as ``python -m models.mechanical_check --tracking-uri URL --name NAME --version N``. Exits 0 and
prints how many rows it scored, or exits 1 and says what is wrong with it. Where the registry does
not answer, nothing is known of the version: it says so, and exits with ``UNAVAILABLE``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np

from models.base import ModelError
from models.registry import Registry, RegistryError
from models.versions import RegistryUnavailableError

__all__ = ["UNAVAILABLE", "check", "main"]

UNAVAILABLE: Final = 75
"""Exit status, that of a temporary failure."""


def check(registry: Registry, name: str, version: int) -> int:
    """Load a version, score its input example twice, and return the number of rows.

    Raises:
        RegistryUnavailableError: when the registry does not answer.
        RegistryError: when there is none, or its files are not those registered.
        ModelError: when a score is missing, not finite, or not the same twice.
    """
    loaded = registry.load_model(name, version)
    batch = registry.input_example(loaded.version)
    loaded.spec.check(batch)
    first, second = loaded.model.probe(batch), loaded.model.probe(batch)
    if first.shape != (batch.num_rows,):
        raise ModelError(f"{batch.num_rows} rows gave scores of shape {first.shape}")
    if not np.isfinite(first).all():
        raise ModelError(
            f"{int((~np.isfinite(first)).sum())} of {len(first)} scores are not finite"
        )
    if not np.array_equal(first, second):
        raise ModelError("the same rows were scored differently the second time")
    return int(batch.num_rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Load and score a registered version.")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True, type=int)
    arguments = parser.parse_args(argv)
    try:
        rows = check(Registry(arguments.tracking_uri), arguments.name, arguments.version)
    except RegistryUnavailableError as error:
        print(error)
        return UNAVAILABLE
    except (ModelError, RegistryError) as error:
        print(f"{arguments.name} version {arguments.version}: {error}")
        return 1
    print(f"{arguments.name} version {arguments.version} scored {rows} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
