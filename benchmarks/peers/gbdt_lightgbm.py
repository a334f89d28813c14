"""`lightgbm.train` on a NumPy matrix in memory, for benchmarks/gbdt.py.

    python benchmarks/peers/gbdt_lightgbm.py FOLDER      # run by gbdt.py

The folder holds task.json (LightGBM's parameters, rounds, categorical columns) and the matrices of
the rows that are fitted, that stop early and that are told; into it go the predictions and the
booster's text. Only `lightgbm.train` is on the clock, the binning inside it included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np


def main() -> None:
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    names = ("fitted", "fitted_labels", "stopping", "stopping_labels", "told")
    fitted, labels, stopping, stopping_labels, told = (np.load(folder / f"{n}.npy") for n in names)
    started = time.perf_counter()
    data = lgb.Dataset(fitted, labels, categorical_feature=task["categorical"])
    booster = lgb.train(
        task["params"],
        data,
        num_boost_round=task["rounds"],
        valid_sets=[lgb.Dataset(stopping, stopping_labels, reference=data)],
        callbacks=[lgb.early_stopping(task["early_stopping_rounds"], verbose=False)],
    )
    seconds = time.perf_counter() - started
    np.save(folder / "predicted.npy", booster.predict(told))
    (folder / "booster.txt").write_text(
        booster.model_to_string(num_iteration=booster.best_iteration)
    )
    found = {"seconds": seconds, "rounds": booster.best_iteration, "version": lgb.__version__}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
