"""Take the champion from the registry and go on training it on an hour's labelled rows.

The reference consumer of what Rankmill hands over. It needs the address of the registry, a Parquet
file with the columns of the champion's FeatureSpec and its labels, and nothing else:

    python examples/finetune_online.py --tracking-uri http://127.0.0.1:5000 --rows hour.parquet
    python examples/finetune_online.py --name live_transformer --rows hour.parquet --out tuned

Nothing is asked of the store that the version was trained from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from models import ModelError
from models.online import OnlineLearner, labelled_batches
from models.registry import Registry, RegistryError


def finetune(
    registry: Registry, name: str, version: str, rows: Path, size: int, rate: float | None
) -> OnlineLearner:
    """The version after one pass over ``rows`` in batches of ``size``."""
    loaded = registry.load(name, version)
    hour = loaded.handoff["data_hour"]
    print(f"{name} version {loaded.version.version}, which has seen the hours up to {hour}")
    learner = OnlineLearner(loaded.model, rate)
    for number, batch in enumerate(labelled_batches(rows, loaded.spec, size), 1):
        losses = learner.update(batch)
        if number == 1 or number % 20 == 0:
            shown = ", ".join(f"{task} {loss:.4f}" for task, loss in losses.items())
            print(f"batch {number}, {batch.num_rows} rows: loss before its step: {shown}")
    return learner


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Fine-tune the champion on labelled rows, in small batches.",
        epilog="\n".join(__doc__.splitlines()[5:7]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI", ""))
    parser.add_argument("--name", default="mmoe_ranker", help="registered name [%(default)s]")
    parser.add_argument("--version", default="champion", help="number or alias [%(default)s]")
    parser.add_argument("--rows", required=True, type=Path, help="Parquet file of labelled rows")
    parser.add_argument("--batch-size", type=int, default=256, help="rows a step [%(default)s]")
    parser.add_argument("--learning-rate", type=float, help="of a step [that of the training]")
    parser.add_argument("--out", type=Path, help="folder for the tuned model")
    given = parser.parse_args(argv)
    try:
        learner = finetune(
            Registry(given.tracking_uri), given.name, given.version, given.rows,
            given.batch_size, given.learning_rate,
        )  # fmt: skip
        if given.out is not None:
            learner.model.save(given.out)
            print(f"saved to {given.out}")
    except (ModelError, RegistryError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
