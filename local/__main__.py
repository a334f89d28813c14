"""Command line of the local stack."""

from __future__ import annotations

import argparse
import shutil
import sys

import requests

from local.processes import alive
from local.run import run, start, stop
from local.screen import Screen
from local.session import process_file
from local.stack import LocalError, Stack, open_stack

__all__ = ["main"]


def status(stack: Stack, screen: Screen) -> int:
    """Show each recorded process."""
    processes = process_file(stack).read()
    if not processes:
        screen.say("  nothing was started, or all was stopped")
    for process in processes:
        state = "running" if alive(process) else "ended"
        screen.say(f"  {process.name:<24} pid {process.pid:<8} {state}")
    return 0


def clean(stack: Stack, screen: Screen) -> int:
    """Delete the state folder, unless something runs in it."""
    if any(alive(process) for process in process_file(stack).read()):
        raise LocalError(f"{stack.state} is in use: make stop SOURCE={stack.source} first.")
    shutil.rmtree(stack.state)
    shutil.rmtree(stack.short_folder, ignore_errors=True)
    screen.say(f"  deleted {stack.state}")
    return 0


COMMANDS = {"run": run, "start": start, "stop": stop, "status": status, "clean": clean}


def build_parser() -> argparse.ArgumentParser:
    """The arguments of ``python -m local``."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--source", default="simulator", help="conf/SOURCE.yaml [simulator]")
    parser.add_argument("--data", help="folder of the source's files")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; 1 with a message when it cannot."""
    arguments = build_parser().parse_args(argv)
    screen = Screen()
    try:
        return COMMANDS[arguments.command](open_stack(arguments.source, arguments.data), screen)
    except (LocalError, requests.RequestException) as error:
        screen.say(f"\n✘ {error}", "bold red")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
