"""The report of KuaiRand's week: rankers fitted day by day, judged on every hour that follows.

    python benchmarks/week_report.py --data ../shared/data --page report.html

Everything by Rankmill's own jobs: the week is ingested and its samples built; at the start of each
business day (UTC+8) from the second on, LightGBM and MMOE are fitted on the day before and
registered; then `evaluate` compares, hour by hour, the newest version of both with the trees of the
first day, which nobody renewed, and with the newest trees on features an hour older. Takes some
minutes. With a Chromium on the PATH the page is also photographed for the README.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.by_source import source_parser  # noqa: E402
from benchmarks.kuairand import store_of_the_week  # noqa: E402
from feature_store import hours as hr  # noqa: E402
from jobs.evaluate import compare  # noqa: E402
from jobs.support.arguments import job_parser  # noqa: E402
from jobs.support.evaluating import Span  # noqa: E402
from jobs.support.pretraining import pretrain  # noqa: E402
from jobs.support.serving import asked  # noqa: E402
from jobs.support.settings import load_settings  # noqa: E402
from jobs.train_gbdt import train  # noqa: E402

PICTURE: Final = ROOT / "docs" / "pictures" / "report.png"
MODELS: Final = "gbdt_ranker,gbdt_ranker/1,mmoe_ranker"


def photograph(page: Path, picture: Path, width: int = 1440, height: int = 2000) -> bool:
    """A picture of the top of ``page``; False where no Chromium is on the PATH."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return False
    with tempfile.TemporaryDirectory(prefix="rankmill-browser-") as profile:
        subprocess.run(
            [browser, "--headless=new", "--no-sandbox", "--hide-scrollbars",
             f"--user-data-dir={profile}", f"--window-size={width},{height}",
             "--virtual-time-budget=4000", f"--screenshot={picture}", page.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    return True


def main() -> int:
    parser = source_parser(__doc__, ("kuairand",))
    parser.add_argument("--page", type=Path, default=Path("report.html"), help="[%(default)s]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder:
        arguments = ["--config", str(ROOT / "conf" / "kuairand.yaml"),
                     "--data", str(given.data / "kuairand"),
                     "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]  # fmt: skip
        os.chdir(folder)  # a tracking database keeps its artefacts beside the process
        settings = load_settings(job_parser("bench", "", "").parse_args(arguments))
        source = settings.open_source()
        first, last = source.span()
        days = sorted({hr.day_of(hour, source.time_zone) for hour in hr.hour_range(first, last)})
        starts = [hr.date_hours(day.isoformat(), source.time_zone)[0] for day in days]
        starts = [hour for hour in starts if hr.difference(hour, first) >= 24]
        with store_of_the_week(first, last, settings) as store:
            for hour in starts:
                train(store, settings, "gbdt_ranker", hour, "bench", dry=False)
                pretrain("pretrain_mmoe", store, settings, "mmoe", hour, "bench", dry=False)
            span = Span(starts[0], last, hr.add(last, 1))
            began = time.monotonic()
            summary = compare(store, settings, asked(MODELS), span, "bench", dry=False,
                              page=ROOT / given.page, lag=1)  # fmt: skip
            print(json.dumps({**summary.details, "seconds": round(time.monotonic() - began, 1)}))
    if photograph(ROOT / given.page, PICTURE):
        print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
