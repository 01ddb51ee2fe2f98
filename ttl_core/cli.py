"""The command `ttl`: what is installed, and what is wrong with it.

Only `show`, `doctor` and `plugins --check` import plugins, and the last two do it in a process of
each plugin's own. What the plain listing does not need is imported late: it is start-up that takes
the time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ttl_core import discovery
from ttl_core.discovery import Offer
from ttl_core.errors import PluginError, TTLError
from ttl_core.explain import table
from ttl_core.ordering import is_name

_EXIT = """\
exit status:
  0  all is well
  1  something is wrong with what is installed, or the name is not installed
  2  the command was not understood
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: its arguments; by default those of the process.

    Returns:
        The exit status: 0, or 1 where something is wrong. argparse exits with 2 by itself.
    """
    parser = argparse.ArgumentParser(
        prog="ttl",
        description="Show which components are installed for ttl, and what is wrong with them.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    plugins = commands.add_parser("plugins", help="list the installed components")
    plugins.add_argument("--json", action="store_true", help="as JSON")
    plugins.add_argument("--check", action="store_true", help="import each, in its own process")
    plugins.set_defaults(run=lambda given: _plugins(given.json, given.check))

    show = commands.add_parser("show", help="show one component: configuration, points, hints")
    show.add_argument("name", metavar="NAME", help="its name, or distribution/name")
    show.set_defaults(run=lambda given: _show(given.name))

    hooks = commands.add_parser("hooks", help="list the callback points of the core")
    hooks.set_defaults(run=lambda _: _hooks())

    doctor = commands.add_parser("doctor", help="find what is wrong with the installation")
    doctor.set_defaults(run=lambda _: _doctor())

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


# -- ttl plugins ----------------------------------------------------------------------------


def _plugins(as_json: bool, check: bool) -> int:
    rows = [_row(offer, check) for offer in _all_offers()]
    if as_json:
        import json

        print(json.dumps(rows, indent=2))
    elif rows:
        shown = [[row[key] for key in ("name", "distribution", "version")] for row in rows]
        lines = [
            [*cells, row["status"], row["summary"]] for cells, row in zip(shown, rows, strict=True)
        ]
        head = ["NAME", "DISTRIBUTION", "VERSION", "STATUS", "SUMMARY"]
        print(_cut(table([head, *lines])))
        for row in rows:
            if row["problem"]:
                problem = _indented(row["problem"], breaking=True)
                print(f"\n{row['name']} ({row['distribution']})\n{problem}")
    else:
        print(f"no components are installed for {sys.executable}")
    return int(any(row["status"] in ("broken", "incompatible") for row in rows))


def _all_offers() -> list[Offer]:
    offers = discovery.offers()
    return [offer for name in sorted(offers) for offer in offers[name]]


def _row(offer: Offer, check: bool) -> dict[str, Any]:
    status, problem = _status(offer, check)
    return {
        "name": offer.name,
        "distribution": offer.distribution,
        "version": offer.version,
        "status": status,
        "summary": offer.summary,
        "problem": problem,
    }


def _status(offer: Offer, check: bool) -> tuple[str, str | None]:
    if not is_name(offer.name):
        return "broken", "its name is not made of small letters, digits and single dashes"
    incompatibility = offer.incompatibility()
    if incompatibility:
        return "incompatible", incompatibility
    if check:
        failure = _import_failure(offer)
        if failure:
            return "broken", failure
    others = [o.distribution for o in discovery.offers()[offer.name] if o is not offer]
    if others:
        return "ambiguous", f"{', '.join(others)} offers it too: use {_full_name(offer)!r}"
    return "available", None


def _full_name(offer: Offer) -> str:
    return f"{offer.distribution}/{offer.name}"


def _import_failure(offer: Offer) -> str | None:
    """Load a component in a process of its own, and return how that failed."""
    import subprocess

    program = (
        "import sys; from ttl_core import TTLError, discovery\n"
        "try: discovery.load(discovery.find(sys.argv[1]))\n"
        "except TTLError as error: sys.exit(str(error))\n"
        "print('loaded')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, _full_name(offer)], capture_output=True, text=True
    )
    if done.stdout.endswith("loaded\n"):
        return None
    said = done.stderr.strip().splitlines()
    if done.returncode < 0:
        return f"importing it killed the process with signal {-done.returncode}"
    return said[-1] if said else f"importing it ended the process with status {done.returncode}"


# -- ttl show -------------------------------------------------------------------------------


def _show(name: str) -> int:
    from ttl_core.checks import implemented_points, read_hints
    from ttl_core.components import LoopComponent

    offer = discovery.find(name)
    made_by = discovery.load(offer)
    if isinstance(made_by, type) and not issubclass(made_by, LoopComponent):
        raise PluginError(
            f"component {offer}: its entry point {offer.entry_point.value!r} names the class "
            f"{made_by.__qualname__}, which is no LoopComponent"
        )
    print(f"{offer.name}  ({offer.distribution} {offer.version})")
    print(_indented(_summary(made_by)))
    print("\nconfiguration")
    print(_configuration(made_by) or "    none")
    print("\ncallback points")
    if isinstance(made_by, type):
        print(_indented("\n".join(implemented_points(made_by)) or "none"))
    else:
        print(_indented("known when it has been made: its entry point is a function"))
    hints = read_hints(made_by, f"component {offer}")
    rows = [[hint, ", ".join(names)] for hint, names in hints._asdict().items() if names]
    if rows:
        print("\nhints")
        print(_indented(table(rows)))
    print("\ninstalled")
    module = sys.modules[offer.entry_point.module]
    print(_indented(f"{offer.entry_point.value}\n{module.__file__}"))
    return 0


def _summary(made_by: object) -> str:
    import inspect

    return (inspect.getdoc(made_by) or "undocumented").partition("\n\n")[0]


def _configuration(made_by: Any) -> str:
    """Return, for each argument, how it is written with its default, and what the docs say."""
    import inspect

    described = dict(_described_arguments(inspect.getdoc(made_by) or ""))
    lines = []
    for name, parameter in inspect.signature(made_by).parameters.items():
        is_open = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        is_required = parameter.default is parameter.empty and not is_open
        text = str(parameter.replace(annotation=parameter.empty))
        lines.append(_indented(f"{text}  (required)" if is_required else text))
        if name in described:
            lines.append(_indented(described[name], by=8))
    return "\n".join(lines)


def _described_arguments(doc: str) -> Iterator[tuple[str, str]]:
    """Yield names and texts from the section Args of a docstring in Google's style."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    for match in re.finditer(
        r"^ {4}\**(\w+)[^:\n]*:((?:.*\n?)(?:^ {5,}.*\n?)*)",
        section[1] if section else "",
        re.MULTILINE,
    ):
        yield match[1], " ".join(match[2].split())


def _indented(text: str, by: int = 4, breaking: bool = False) -> str:
    """Return text wrapped and indented; what may be pasted is not broken, however long."""
    width = min(_width(), 100) - by
    wrap = textwrap.TextWrapper(width, break_long_words=breaking, break_on_hyphens=False).wrap
    lines = [line for part in text.splitlines() for line in wrap(part) or [""]]
    return textwrap.indent("\n".join(lines), " " * by)


# -- ttl hooks ------------------------------------------------------------------------------


def _hooks() -> int:
    import inspect

    from ttl_core.hookspecs import POINTS, CallbackPoints, since

    for point in POINTS:
        spec = getattr(CallbackPoints, point)
        arguments = ", ".join(list(inspect.signature(spec).parameters)[1:])
        print(f"{point}({arguments})  since {since(point)}")
        print(_indented(_summary(spec)))
    return 0


# -- ttl doctor -----------------------------------------------------------------------------


def _doctor() -> int:
    problems = list(_problems())
    for what, mend in problems:
        print(f"{_indented(what, by=0)}\n    {mend}")
    n_offers = len(_all_offers())
    if problems:
        print(f"\n{len(problems)} found wrong, with {n_offers} components installed")
    else:
        print(f"nothing found wrong, with {n_offers} components installed")
    return int(bool(problems))


def _problems() -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the installation, each with the mend."""
    for offer in _all_offers():
        status, problem = _status(offer, check=True)
        if problem is not None:
            mends = {
                "ambiguous": f"write use({_full_name(offer)!r}), or uninstall one of them",
                "incompatible": f"pip install --upgrade ttl-core {offer.distribution}",
                "broken": f"pip install --upgrade --force-reinstall {offer.distribution}",
            }
            yield f"{offer} is {status}: {problem}", mends[status]
    for place, reason in discovery.scan().broken.items():
        yield f"{place} cannot be read: {reason}", "reinstall that distribution, or remove it"
    for checkout in discovery.stale_checkouts():
        changed = sorted(checkout.undeclared | checkout.gone)
        yield (
            f"the editable checkout {checkout.path} of {checkout.distribution} has changed its "
            f"components since it was installed: {', '.join(changed)}",
            checkout.mend,
        )
    yield from _shadowed()
    yield from _unmet_requirements()
    yield from _leftovers()


def _shadowed() -> Iterator[tuple[str, str]]:
    for dist in discovery.distributions():
        with contextlib.suppress(Exception):  # what cannot be read is said elsewhere
            is_ours = f"[{discovery.GROUP}]" in (dist.read_text("entry_points.txt") or "")
            if is_ours and discovery.is_shadowed(dist, dist.name):
                yield (
                    f"{dist.name} {dist.version} in {discovery.place_of(dist)} is shadowed by "
                    "another copy that is found first",
                    "uninstall both, until pip finds none, and install the one that you want",
                )


def _unmet_requirements() -> Iterator[tuple[str, str]]:
    for name in sorted({"ttl-core", *(offer.distribution for offer in _all_offers())}):
        dist = discovery.installed(name)
        for line in (dist and dist.requires) or []:
            found = _unmet(line)
            if found is not None:
                yield f"{name} requires {line}, and installed is {found}", f"pip install '{line}'"


def _unmet(line: str) -> str | None:
    """Return what is installed instead of what a requirement wants, or None if it is met."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return None  # said as incompatible
    if requirement.name == "ttl-core":
        return None  # likewise
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return None
    found = discovery.installed(requirement.name)
    try:
        version = found.version if found else "none"
    except (KeyError, OSError):
        version = "none that can be read"
    if found and not version.startswith("none"):
        return None if requirement.specifier.contains(version, prereleases=True) else version
    return version


def _leftovers() -> Iterator[tuple[str, str]]:
    for place in dict.fromkeys(sys.path):
        folder = Path(place or ".")
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            is_half = path.suffix == ".dist-info" and path.is_dir()
            if path.name.startswith("~"):
                yield f"{path} was left over by an interrupted pip", f"remove {path}"
            elif is_half and not (path / "METADATA").exists():
                yield (
                    f"{path} has no METADATA: an uninstallation was interrupted",
                    f"remove {path}, and reinstall what you need of it",
                )


def _width() -> int:
    return os.get_terminal_size().columns if sys.stdout.isatty() else 80


def _cut(text: str) -> str:
    width = _width()
    lines = text.splitlines()
    return "\n".join(
        line if len(line) <= width else f"{line[: width - 1].rstrip()}…" for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
