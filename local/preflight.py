"""What this machine must have before anything is started, said before it is missed."""

from __future__ import annotations

import os
import shutil
import sys

from local.screen import Screen
from local.setup import SetupError, find_java
from local.stack import LocalError, Stack

__all__ = ["available_memory", "check_machine"]

GIB = 2**30
LEAST_MEMORY, GOOD_MEMORY = 3 * GIB, 6 * GIB
LEAST_DISK = 3 * GIB


def available_memory() -> int:
    """Bytes that can be had without swapping, the container's limit included."""
    free = 0
    with open("/proc/meminfo") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return free


def check_machine(stack: Stack, screen: Screen) -> None:
    """Java, memory, disk, system.

    Raises:
        LocalError: what is missing, and the remedy.
    """
    if not sys.platform.startswith("linux"):
        raise LocalError("make run needs Linux; elsewhere use the containers in docker/.")
    try:
        find_java(dict(os.environ))
    except SetupError as error:
        raise LocalError(str(error)) from error
    disk = shutil.disk_usage(stack.state).free
    if disk < LEAST_DISK:
        raise LocalError(
            f"Only {disk / GIB:.1f} GiB of disk are free at {stack.state}; 3 GiB are needed."
        )
    memory = available_memory()
    if memory < LEAST_MEMORY:
        raise LocalError(
            f"Only {memory / GIB:.1f} GiB of memory are available; Spark, Airflow and MLflow need "
            "3 together, and 6 to be comfortable."
        )
    if memory < GOOD_MEMORY:
        screen.say(f"  {memory / GIB:.1f} GiB of memory available: this may be slow", "yellow")
