"""The command line ``cvpo``. Every command is a module of its own, imported when it is called: help is quick."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import cvpo
from cvpo.errors import ConfigError, CvpoError, DependencyError, suggest
from cvpo.extras import require

COMMANDS = {
    "train": "train an agent on a task, in a run folder",
    "resume": "go on with a run from its newest checkpoint",
    "eval": "evaluate the policy of a run, as a table or a video",
    "plot": "draw return and cost curves of runs, with the limits",
    "list": "list the components that there are",
    "check": "check a component against the properties of its family",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, 1 for a failure, 2 for usage, 128 + n after signal n."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Components and tasks of the user's own modules are found from the folder that the command is given in.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _dispatch(arguments)
        except CvpoError as error:
            # Notes: where in the user's own code a worker's environment failed.
            print("\n".join([f"cvpo: error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
            return 2 if isinstance(error, (ConfigError, DependencyError)) else 1
        except KeyboardInterrupt:
            print("cvpo: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader of our output (a pager, head) has gone; nothing is left to say, and nothing to flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        _parser().print_help()
        return 0
    if arguments[0] == "--version":
        print(f"cvpo {cvpo.__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise ConfigError(f"there is no command {command!r}; {suggest(command, COMMANDS)}")
    require("tyro", "the command line", "train")
    return int(_command(command).main(rest) or 0)


def _command(name: str) -> Any:
    try:
        return importlib.import_module(f"cvpo.cli.{name}_command")
    except CvpoError:
        raise
    except Exception as error:  # noqa: BLE001 - Gymnasium imports every plug-in that is installed, MuJoCo's among them
        chosen = os.environ.get("MUJOCO_GL")
        hint = f"; MUJOCO_GL is {chosen!r}: allowed: egl, osmesa or glfw, whichever is installed" if chosen else ""
        raise DependencyError(f"packages cannot be imported: {type(error).__name__}: {error}{hint}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cvpo",
        description="Constrained Variational Policy Optimization: safe reinforcement learning out of components.",
        epilog="`cvpo COMMAND --help` says more of each command.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


def _show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    print(f"cvpo: warning: {message}", file=sys.stderr)
