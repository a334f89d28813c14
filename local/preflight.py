"""What this machine must have before anything is started, said before it is missed."""

from __future__ import annotations

import os

from local.machine import FAIL, WARN, Machine, memory, room_for_state
from local.screen import Screen
from local.setup import SetupError, find_java
from local.stack import LocalError, Stack
from local.startup import refusal

__all__ = ["check_machine"]


def check_machine(stack: Stack, screen: Screen) -> None:
    """Settings, Java, memory, disk, system; ``make doctor`` looks at more.

    Raises:
        LocalError: what is missing, and the remedy.
    """
    machine = Machine(root=stack.root)
    if not machine.platform.startswith("linux"):
        raise LocalError("make run needs Linux; elsewhere use the containers in docker/.")
    if reason := refusal(machine):
        raise LocalError(reason)
    try:
        find_java(dict(os.environ))
    except SetupError as error:
        raise LocalError(str(error)) from error
    for found in (room_for_state(machine), memory(machine)):
        if found.level == FAIL:
            raise LocalError(found.sentence)
        if found.level == WARN:
            screen.say(f"  {found.sentence}", "yellow")
