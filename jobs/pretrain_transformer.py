"""Pre-train the behaviour-sequence Transformer on the days before a day, and register it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from jobs.support.pretraining import pretraining_parser, run_pretraining
from jobs.support.summary import Summary, main_of

__all__ = ["build_parser", "main", "run"]

JOB = "pretrain_transformer"
FAMILY: Final = "live_transformer"


def run(arguments: argparse.Namespace) -> Summary:
    return run_pretraining(JOB, arguments)


def build_parser() -> argparse.ArgumentParser:
    return pretraining_parser(JOB, FAMILY, "the behaviour-sequence Transformer")


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
