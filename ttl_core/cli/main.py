"""The command `ttl`: its subcommands, and its exit status."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from ttl_core import discovery
from ttl_core.arguments import did_you_mean
from ttl_core.cli.commands import CORE, Command, find_command, packaged_commands
from ttl_core.cli.text import indent
from ttl_core.discovery.summaries import summary_of
from ttl_core.errors import TTLError, UnknownNameError

_EXIT = """\
exit status:
  0  it did its work
  1  something is wrong with what is installed, or a name is not installed
  2  the command was not understood
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `ttl`.

    Args:
        arguments: its arguments; by default those of the process.

    Returns:
        The exit status: 0, or 1 where something is wrong. argparse exits with 2 by itself.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    called = next((argument for argument in arguments if not argument.startswith("-")), "")
    parser = argparse.ArgumentParser(
        prog="ttl",
        usage="ttl [-h] [--version] COMMAND ...",
        description="Components for ttl: what is installed, what is wrong with it, and new ones.",
        epilog="" if arguments[:1] == [called] else f"{_commands_text()}\n\n{_EXIT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_ShowVersions, help="show the versions and exit")
    parsers = _command_parsers(parser)
    for name in parsers:
        if called in CORE and name.endswith(f"/{called}"):
            print(f"ttl: a package has another command {called!r}: ttl {name}", file=sys.stderr)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        command = find_command(called)
    except UnknownNameError as error:
        parser.error(str(error))
    if called and command is None:
        hint = did_you_mean(called, parsers)
        parser.error(f"there is no command {called!r}. {hint}There are: {', '.join(parsers)}")
    if command is None or arguments[0] != called:
        parser.parse_args(arguments)  # prints the help, or what is wrong, and exits
        return 2
    # "distribution/name" may be given for what is listed by its name, or in another spelling
    own = parsers.get(called) or argparse.ArgumentParser(prog=f"ttl {called}")
    return _run(command, own, arguments[1:])


def _command_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return parsers of all commands by the names to call them by, without their arguments."""
    subparsers = parser.add_subparsers(
        prog="ttl", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )
    parsers = {name: subparsers.add_parser(name, description=text) for name, text in CORE.items()}
    return parsers | {name: subparsers.add_parser(name) for name in packaged_commands()}


def _run(command: Command, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run a command by its own parser, so that errors show its usage; return the exit status."""
    try:
        command.prepare(parser)
        status = command.run(parser.parse_args(arguments))
        sys.stdout.flush()
    except TTLError as error:
        print(f"ttl: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `ttl plugins | head`; Python would complain once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


class _ShowVersions(argparse.Action):
    """An option that prints versions and exits. They are looked up for it alone."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        found = {name: discovery.installed_distribution(name) for name in _SHOWN}
        versions = [f"{name} {dist.version}" for name, dist in found.items() if dist is not None]
        print(", ".join([*versions, f"Python {platform.python_version()}"]))
        parser.exit()


_SHOWN = ("ttl-core", "torch", "pluggy")
"""The distributions of which `--version` shows the version."""


def _commands_text() -> str:
    """Return the commands, each with what it does, those of packages with their distributions."""
    others = packaged_commands()
    texts = CORE | {n: f"{summary_of(each)} ({each.distribution})" for n, each in others.items()}
    width = max(map(len, texts)) + 4
    lines = [
        f"  {name}".ljust(width) + indent(text, by=width).lstrip() for name, text in texts.items()
    ]
    return "\n".join(["commands:", *lines, "", "`ttl COMMAND --help` says what a command takes."])
