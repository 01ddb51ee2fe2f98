"""`ttl new`: a distribution to begin with, complete and tested.

The folder `template` has real distributions of a component named like the placeholder: what every
one has under `every`, and the rest in a folder for each kind. They are copied with another name.
"""

from __future__ import annotations

import argparse
import builtins
import keyword
from collections.abc import Iterator
from pathlib import Path

import ttl_core
from ttl_core import discovery
from ttl_core.errors import ArgumentError

KINDS = ("component", "hookspecs", "logger", "bundle")
PLACEHOLDER = "my-component"

_TEMPLATE = Path(__file__).with_name("template")
_MAX_LENGTH = 27  # of a name: with longer ones, lines of the template exceed 100 characters
_USED = {  # by the template, beside what ttl_core exports
    "Any",
    "ComponentConformance",
    "Literal",
    "Path",
    "Sequence",
    "Show",
    "Step",
    "annotations",
    "functools",
    "torch",
}


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl new`."""
    parser.add_argument(
        "name", metavar="NAME", help="the component's name; the package is ttl-NAME"
    )
    kind = parser.add_mutually_exclusive_group()
    for option, text in (
        ("hookspecs", "a component that provides callback points"),
        ("logger", "a component that writes logged values somewhere"),
        ("bundle", "a list of components under one name"),
    ):
        kind.add_argument(f"--{option}", dest="kind", action="store_const", const=option, help=text)
    parser.set_defaults(
        run=lambda given: create_distribution(given.name, given.kind), kind="component"
    )


def create_distribution(name: str, kind: str) -> int:
    """Write a distribution with one component into a new folder, and return the exit status.

    Args:
        name: the name of the component. The distribution and the folder are called `ttl-<name>`.
        kind: one of `KINDS`.

    Raises:
        UnknownNameError: the name is none by the grammar.
        ArgumentError: it cannot be used, or the folder cannot be written to.
    """
    _refuse_unusable(name)
    distribution, package = f"ttl-{name}", f"ttl_{name.replace('-', '_')}"
    _refuse_taken(name, distribution)
    folder = Path(distribution)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ArgumentError(f"the folder {folder} is not empty: remove it, or begin elsewhere")
        for path, text in _files(kind):
            target = folder / _renamed(path.as_posix(), name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_renamed(text, name), encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"the folder {folder} cannot be written: {error}") from error
    print(f"{folder} holds a package that is complete and tested. To install and test it:\n")
    print(f'    cd {folder}\n    pip install --editable ".[dev]" && pytest\n')
    print(f"Then edit src/{package}, tests and README.md.")
    return 0


def _refuse_unusable(name: str) -> None:
    if name in (PLACEHOLDER, "name"):
        raise ArgumentError(f"{name!r} is the placeholder of the documentation: choose a name")
    discovery.check_name(name, "component")
    if name.startswith("ttl-"):
        raise ArgumentError(
            f"{name!r} begins with 'ttl-', which the distribution gets by itself: "
            f"ttl new {name.removeprefix('ttl-')}"
        )
    if not 2 <= len(name) <= _MAX_LENGTH:
        raise ArgumentError(f"{name!r} has to have 2 to {_MAX_LENGTH} characters, for its code")
    reserved = {*keyword.kwlist, *dir(builtins), *ttl_core.__all__, *_USED}
    for identifier in (_snake_case(name), _camel_case(name)):
        if identifier in reserved:
            raise ArgumentError(
                f"{name!r} would be {identifier!r} in the code, which has another meaning there: "
                "choose another name"
            )


def _refuse_taken(name: str, distribution: str) -> None:
    offered = [*discovery.find_all(name), *discovery.find_all(name, "bundle")]
    if offered:
        raise ArgumentError(f"the name is taken by the installed component {offered[0]}")
    installed = discovery.installed_distribution(distribution)
    if installed is not None:
        raise ArgumentError(
            f"the name is taken by the installed distribution {distribution} {installed.version}"
        )


def _files(kind: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a kind as relative paths and texts, its own after those of every kind."""
    for folder in (_TEMPLATE / "every", _TEMPLATE / kind):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":  # pip compiles what it installs
                yield path.relative_to(folder), path.read_text("utf-8")


def _renamed(text: str, name: str) -> str:
    """Return a text of the template with the name of the component in place of the placeholder."""
    for write in (str, _snake_case, _camel_case):
        text = text.replace(write(PLACEHOLDER), write(name))
    return text


def _snake_case(name: str) -> str:
    return name.replace("-", "_")


def _camel_case(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
