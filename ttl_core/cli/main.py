"""The command `ttl`: its arguments, and its exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ttl_core.errors import TTLError

_EXIT = """\
exit status:
  0  it did its work
  1  doctor or plugins --check found something wrong, a name is not installed, or it cannot be
     used for something new
  2  the command was not understood
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `ttl`.

    Args:
        arguments: its arguments; by default those of the process.

    Returns:
        The exit status: 0, or 1 where something is wrong. argparse exits with 2 by itself.
    """
    parser = argparse.ArgumentParser(
        prog="ttl",
        description="Components for ttl: what is installed, what is wrong with it, and new ones.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    plugins = commands.add_parser("plugins", help="list the installed components")
    plugins.add_argument("--json", action="store_true", help="as JSON")
    plugins.add_argument("--check", action="store_true", help="import each, in its own process")
    _add_time_limit(plugins)
    plugins.set_defaults(run=_list_plugins)

    show = commands.add_parser("show", help="show one component: configuration, points, hints")
    show.add_argument("name", metavar="NAME", help="its name, or distribution/name")
    show.set_defaults(run=_show)

    hooks = commands.add_parser("hooks", help="list the callback points of the core")
    hooks.set_defaults(run=_list_hooks)

    doctor = commands.add_parser("doctor", help="find what is wrong with the installation")
    _add_time_limit(doctor)
    doctor.set_defaults(run=_diagnose)

    new = commands.add_parser("new", help="write a package with a component, complete and tested")
    new.add_argument("name", metavar="NAME", help="the component's name; the package is ttl-NAME")
    kind = new.add_mutually_exclusive_group()
    for option, text in (
        ("hookspecs", "a component that provides callback points"),
        ("logger", "a component that writes logged values somewhere"),
        ("bundle", "a list of components under one name"),
    ):
        kind.add_argument(f"--{option}", dest="kind", action="store_const", const=option, help=text)
    new.set_defaults(run=_create_distribution, kind="component")

    given = parser.parse_args(arguments)
    try:
        status = int(given.run(given))
        sys.stdout.flush()
    except TTLError as error:
        print(f"ttl: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `ttl plugins | head`; Python would complain once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _add_time_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-limit",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long importing one component may take (default: 60)",
    )


# each command is imported when it is run: start-up takes most of the time of `ttl plugins`


def _list_plugins(given: argparse.Namespace) -> int:
    from ttl_core.cli.plugins import list_plugins

    return list_plugins(given.json, given.check, given.time_limit)


def _show(given: argparse.Namespace) -> int:
    from ttl_core.cli.show import show_component

    return show_component(given.name)


def _list_hooks(_: argparse.Namespace) -> int:
    from ttl_core.cli.hooks import list_hooks

    return list_hooks()


def _diagnose(given: argparse.Namespace) -> int:
    from ttl_core.cli.doctor import diagnose

    return diagnose(given.time_limit)


def _create_distribution(given: argparse.Namespace) -> int:
    from ttl_core.cli.new import create_distribution

    return create_distribution(given.name, given.kind)
