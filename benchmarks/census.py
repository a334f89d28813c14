"""Census-Income through `mmoe`: test AUC of income and of never married over several seeds.

    python benchmarks/census.py --data ../shared/data/census_income
    python benchmarks/census.py --data ../shared/data/census_income --seeds 1 --epochs 2

The tasks are those of Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts (KDD 2018, section 6.3): income above 50,000 dollars, and never married, from the
other columns without the instance weight. Each seed fits the multi-task model and, from the same
file, each task's single-task twin; the reference is PaddleRec's published MMoE.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from models import MODELS, FeatureSpec, SparseColumn
from models.metrics import auc

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "census.jsonl"
COLUMNS: Final = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled", "marital", "major_industry", "major_occupation", "race", "hispanic", "sex",
    "union", "unemployment_reason", "full_or_part_time", "capital_gains", "capital_losses",
    "dividends", "tax_filer", "region_before", "state_before", "family_status",
    "household_summary", "instance_weight", "migration_msa", "migration_region",
    "migration_within", "same_house", "migration_sunbelt", "employer_persons", "under_18",
    "father_country", "mother_country", "own_country", "citizenship", "own_business",
    "veterans_form", "veterans_benefits", "weeks_worked", "year", "income",
)  # fmt: skip
NUMBERS: Final = ("age", "wage_per_hour", "capital_gains", "capital_losses", "dividends",
                  "employer_persons", "weeks_worked")  # fmt: skip
LEFT_OUT: Final = ("marital", "income", "instance_weight")
REFERENCE: Final = {"income": (0.9447, 0.9494), "never_married": (0.9932, 0.9942)}
CONFIG: Final[dict[str, Any]] = {
    "tasks": ["income", "never_married"],
    "embedding": 16,
    "experts": 4,
    "expert_layers": [128, 64],
    "gate_units": 32,
    "tower_layers": [32],
    "batch_size": 1024,
    "learning_rate": 0.001,
    "schedule": "linear",
    "patience": 20,
    "window": 200_000,
}


def census(path: Path) -> pa.Table:
    """One file: texts as they are, numbers as float32 beside their texts, and two labels."""
    kinds = dict.fromkeys(COLUMNS, pa.string())
    raw = csv.read_csv(
        path,
        csv.ReadOptions(column_names=list(COLUMNS)),
        csv.ParseOptions(delimiter=","),
        csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
    )
    columns = {name: pc.utf8_trim_whitespace(raw[name]) for name in COLUMNS}
    found = {name: column for name, column in columns.items() if name not in LEFT_OUT}
    found |= {f"{name}_number": pc.cast(columns[name], pa.float32()) for name in NUMBERS}
    found["label_income"] = pc.cast(pc.match_substring(columns["income"], "50000+"), pa.float32())
    never = pc.equal(columns["marital"], "Never married")
    found["label_never_married"] = pc.cast(never, pa.float32())
    return pa.table(found)


def spec_of(train: pa.Table) -> FeatureSpec:
    """Every column by its text, numbers as numbers as well."""
    texts = [name for name in COLUMNS if name not in LEFT_OUT]
    return FeatureSpec(
        dense=tuple(f"{name}_number" for name in NUMBERS),
        sparse=tuple(
            SparseColumn(name, pc.count_distinct(train[name]).as_py() + 2, kind="vocabulary")
            for name in texts
        ),
        labels=("label_income", "label_never_married"),
    )


def held(share: int) -> Any:
    """Every so-many-th row is kept for choosing the epoch."""

    def chosen(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        return np.arange(batch.num_rows) % share == 0

    return chosen


def fitted(
    train: pa.Table, test: pa.Table, spec: FeatureSpec, config: dict[str, Any], told: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Test AUC by task of the epoch that the held rows chose; numbers about the fit."""
    model = MODELS["mmoe"].build(config, spec)  # type: ignore[attr-defined]
    report = model.fit_batches(
        lambda: iter(train.to_batches(8192)), held(20), lambda line: print(f"[{told}] {line}")
    )
    found = model.predict(test)
    scores = {
        task: auc(test[f"label_{task}"].to_numpy().astype(float), found[task])
        for task in model.tasks
    }
    numbers = {
        name: round(value, 4)
        for name, value in report.numbers.items()
        if name != "samples_per_second"  # make bench-deep measures that
    }
    return scores, {"epochs_kept": report.rounds[model.tasks[0]], **numbers}


def lines(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One result a task and statistic, beside the published one, with the single-task twin's."""
    for task, (mean, best) in REFERENCE.items():
        multi = [run["mmoe"][task] for run in runs]
        single = [run["single"][task] for run in runs]
        for case, reduce, published in (("mean", np.mean, mean), ("best", np.max, best)):
            ours = float(reduce(multi))
            yield {
                "bench": "census",
                "case": f"{task} AUC, {case}",
                "ours": round(ours, 5),
                "peer": "PaddleRec MMoE, published",
                "peer_version": "census-income",
                "theirs": published,
                "unit": "auc",
                "ratio": round(ours / published, 5),
                "ours_peak_mb": None,
                "theirs_peak_mb": None,
                "quality": {
                    "single_task": round(float(reduce(single)), 5),
                    "by_seed": [round(value, 5) for value in multi],
                    "single_by_seed": [round(value, 5) for value in single],
                    "fits": [run["fit"] for run in runs],
                    "torch": importlib.metadata.version("torch").split("+")[0],
                },
                "repetitions": len(runs),
                "cores": os.cpu_count(),
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
            }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:4]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ROOT.parent / "shared" / "data" / "census_income"
    parser.add_argument("--data", type=Path, default=default, help="folder with the two files")
    parser.add_argument("--seeds", type=int, default=5, help="fits of each model [%(default)s]")
    parser.add_argument("--epochs", type=int, default=8, help="of a fit [%(default)s]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON",
                        help="another value of the configuration; writes no result")  # fmt: skip
    parser.add_argument("--no-single", action="store_true", help="leave the twins out; no result")
    given = parser.parse_args()
    train, test = (
        census(given.data / f"census_income_{part}.csv.gz") for part in ("train", "test")
    )
    spec = spec_of(train)
    changed = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in given.set)}
    runs = []
    for seed in range(given.seeds):
        config = {**CONFIG, "epochs": given.epochs, "seed": seed, **changed}
        began = time.monotonic()
        scores, fit = fitted(train, test, spec, config, f"mmoe, seed {seed}")
        seconds = round(time.monotonic() - began, 1)
        single = {}
        for task in () if given.no_single else REFERENCE:
            told = f"{task} alone, seed {seed}"
            single |= fitted(train, test, spec, {**config, "tasks": [task]}, told)[0]
        print(f"seed {seed}: {scores} single {single} in {seconds} s", flush=True)
        runs.append({"mmoe": scores, "single": single, "fit": fit})
    if given.no_single:
        return 0
    found = [json.dumps(line) for line in lines(runs)]
    print("\n".join(found))
    if not changed and given.seeds == 5:
        RESULTS.write_text("\n".join(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
