"""The subcommands of `ttl`: those of the core, and those that packages add.

A command is a function that takes its parser of argparse, adds arguments to it, and sets the
default `run` to a function that takes the parsed arguments and returns the exit status.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import NamedTuple

from ttl_core import discovery
from ttl_core.arguments import is_component_name
from ttl_core.discovery import InstalledComponent
from ttl_core.errors import PluginError

CORE = {
    "plugins": "List the installed components.",
    "show": "Show one component: configuration, callback points, hints, and where it is installed.",
    "hooks": "List the callback points of the core and of installed components.",
    "check": "Run the conformance suite on installed components.",
    "freeze": "List the distributions that a run needs, as requirements for pip.",
    "doctor": "Find what is wrong with the installation, or differs from that of a run.",
    "new": "Write a package with a component, complete and tested.",
}
"""What each command of the core does. It is the function `command` of the module of its name."""


class Command(NamedTuple):
    """A command that is called.

    Attributes:
        name: its name.
        origin: where it is installed; None for one of the core.
    """

    name: str
    origin: InstalledComponent | None = None

    def prepare(self, parser: argparse.ArgumentParser) -> None:
        """Import the command, and let it add its arguments to a parser.

        Raises:
            PluginError: it is one of a package, and cannot be imported or fails.
        """
        if self.origin is None:
            import_module(f"ttl_core.cli.{self.name}").command(parser)
            return
        function = discovery.load(self.origin)
        try:
            function(parser)
        except Exception as error:
            raise self._error(f"raised {type(error).__name__}: {error}") from error

    def run(self, given: argparse.Namespace) -> int:
        """Run the command, and return the exit status.

        Args:
            given: its arguments.

        Raises:
            PluginError: it is one of a package, and has not set what to run.
        """
        if self.origin is None:
            return int(given.run(given))
        if not callable(getattr(given, "run", None)):
            raise self._error("did not call parser.set_defaults(run=...) with a function")
        try:
            return int(given.run(given) or 0)
        except Exception as error:
            error.add_note(f"ttl: raised by command {self.origin}")
            raise

    def _error(self, what: str) -> PluginError:
        assert self.origin is not None
        return PluginError(
            f"command {self.origin} cannot be run: its entry point "
            f"{self.origin.entry_point.value!r} {what}. Report it to the author of "
            f"{self.origin.distribution}"
        )


def find_command(called: str) -> Command | None:
    """Return a command, which is not imported yet; None if there is none of the name.

    Args:
        called: its name, or "distribution/name" for one of a package.

    Raises:
        UnknownNameError: several distributions have it.
    """
    if called in CORE:
        return Command(called)
    name = called.rpartition("/")[2]
    if name not in discovery.scan().entries["command"]:
        return None
    return Command(name, discovery.find(called, "command"))


def packaged_commands() -> dict[str, InstalledComponent]:
    """Return the commands of packages by the name to call them by.

    That is "distribution/name" where the core or another distribution has one of the name.
    """
    return {
        f"{each.distribution}/{name}" if name in CORE or len(several) > 1 else name: each
        for name, several in sorted(discovery.scan().entries["command"].items())
        for each in several
        if is_component_name(name)
    }


def add_time_limit(parser: argparse.ArgumentParser, of: str) -> None:
    """Add the option `--time-limit` to a parser.

    Args:
        parser: the parser.
        of: what may not take longer.
    """
    parser.add_argument(
        "--time-limit",
        type=float,
        default=60,
        metavar="SECONDS",
        help=f"how long {of} may take (default: 60)",
    )
