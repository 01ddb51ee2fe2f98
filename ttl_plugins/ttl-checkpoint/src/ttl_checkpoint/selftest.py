"""The command `ttl selftest`: kills a script at random points, and looks whether it resumes."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.probe import CAPTURED, CONTINUED, DIGEST, OWNED, RESUMED, Kill
from ttl_checkpoint.script_runs import Fact, Facts, Place, Script

_N_SHOWN = 5
_NOT_SAVED = (CAPTURED, OWNED)
"""The first parts of the paths of what is in no state."""


def command(parser: argparse.ArgumentParser) -> None:
    """Kill and resume a script at random points, and name what then differs.

    Its exit status is 0, 1 if a resumed run differs, 2 if the script cannot be tested.

    Args:
        parser: the parser.
    """
    parser.description = (
        "Run a script that trains with the component 'checkpoint' twice to its end, and once more "
        "with kill -9 at random points, after each of which it is started again; then compare "
        "what was saved, to the bit, and name what differs and its owner."
    )
    parser.epilog = (
        "Each run has a folder of its own as the current one, which is removed. The exit status "
        "is 1 if the resumed run differs, 2 if the script cannot be tested."
    )
    _add_options(parser)
    parser.add_argument(
        "script",
        nargs=argparse.PARSER,
        metavar="SCRIPT",
        help="the script, and its arguments: those that begin with dashes after --",
    )
    parser.usage = "%(prog)s [-h] [--kills N] [--seed N] [--link PATH] SCRIPT [-- ARGUMENT ...]"
    parser.set_defaults(run=lambda given: _run(_with_script(parser, given)))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kills",
        metavar="N",
        type=int,
        default=3,
        help="how often to kill it (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="the seed of the points (default: %(default)s)",
    )
    parser.add_argument(
        "--link",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a file or folder that the script reads, to be in the current folder of each run",
    )


def _with_script(parser: argparse.ArgumentParser, given: argparse.Namespace) -> argparse.Namespace:
    """Tell the script, options behind it, and its arguments apart, which argparse cannot."""
    words = given.script  # from the script on, all that was given
    end = words.index("--") if "--" in words else len(words)
    own, passed_on = words[:end], words[end + 1 :]
    if not own:
        parser.error("the script has to be in front of --")
    options = argparse.ArgumentParser(prog=parser.prog, usage=parser.format_usage()[7:])
    _add_options(options)
    options.add_argument("arguments", nargs="*")
    given.script = Path(own[0])
    options.parse_intermixed_args(own[1:], given)
    given.arguments += passed_on
    return given


def _run(given: argparse.Namespace) -> int:
    try:
        if not hasattr(os, "fork"):
            raise CheckpointError("selftest takes a system that can fork processes, as Linux")
        if not given.script.is_file():
            raise CheckpointError(f"there is no script {given.script}")
        script = Script(given.script.absolute(), given.arguments, given.link)
        with tempfile.TemporaryDirectory(prefix="ttl-selftest-") as root:
            # the first optimizer imports much of torch, which each run would do again
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0).zero_grad()
            return _test(script, Path(root), given.kills, random.Random(given.seed))
    except CheckpointError as error:
        print(f"ttl: {error}", file=sys.stderr)
        return 2


def _test(script: Script, root: Path, n_kills: int, numbers: random.Random) -> int:
    """Test a script, print what was found, and return the exit status."""
    one, two = (script.run(root / name) for name in ("one", "two"))
    unstable = {
        fact for at in one.facts for fact in _differing(one.facts[at], two.facts.get(at, {}))
    }
    in_model = [_described(fact) for fact in unstable if fact[0] == "model"]
    if in_model:
        raise CheckpointError(
            f"two runs that were not interrupted differ already, in {min(in_model)}. Seed all "
            "random numbers, as by the component 'seed', and see "
            "torch.use_deterministic_algorithms()"
        )
    states = [at for at in one.facts if at[3] != CONTINUED]
    print(f"{len(one.steps)} safe points, {len(states)} states, in {one.seconds:.1f} s")
    kills = _chosen_kills(one.steps, n_kills, numbers)
    killed = script.run(root / "killed", kills).facts
    found = {at: _differing(one.facts[at], killed[at], unstable) for at in states if at in killed}
    for at, facts in found.items():
        if any(fact[0] not in (*_NOT_SAVED, "components") for fact in facts):
            _print_failure(one.facts, killed, unstable, at)
            return 1
    print(f"resumed to the same bits: {len(found)} states are those of a run without kills")
    others = {fact for facts in found.values() for fact in facts}
    for what, which in (("without kills too", unstable), ("in its own state alone", others)):
        owners = sorted({_owner(fact) for fact in which if fact[0] not in _NOT_SAVED})
        if owners:
            print(f"differs {what}: {', '.join(owners)}")
    return 0


def _chosen_kills(
    steps: list[tuple[int, int, float]], n: int, numbers: random.Random
) -> list[Kill]:
    """Return points at which to kill a script, each somewhere before the next safe point."""
    chosen = sorted(numbers.sample(range(len(steps) - 1), min(n, len(steps) - 1)))
    kills = []
    for i in chosen:
        saver, step, at = steps[i]
        kills.append(Kill(saver, step, numbers.random() * (steps[i + 1][2] - at)))
    return kills


def _differing(expected: Facts, actual: Facts, ignored: Collection[Fact] = ()) -> list[Fact]:
    """Return what differs, in order."""
    facts = dict.fromkeys([*expected, *actual])
    return [f for f in facts if f not in ignored and expected.get(f) != actual.get(f)]


def _owner(fact: Fact) -> str:
    part, *names = fact
    if part in _NOT_SAVED:
        return names[0]
    if part == "components":
        return f"component {names[0]!r}"
    if part in ("variables", "hidden"):
        return f"the loop variable {names[0]!r}"
    return f"the {part}" if part != "random" else "the global random numbers"


def _described(fact: Fact) -> str:
    part, *names = fact
    kind = "attribute " if part == OWNED and names[0].startswith("component") else ""
    if part in (*_NOT_SAVED, "components", "variables", "hidden"):
        del names[0]  # the owner's
    return f"{_owner(fact)}: {kind}{'.'.join(names)}" if names else _owner(fact)


def _likeliness(fact: Fact, with_state: Collection[str]) -> int:
    """Return how likely something that is in no state is the cause, from 0, the likeliest."""
    owner = _owner(fact)
    if fact[0] == CAPTURED:
        return 0
    return _OF_PACKAGES if " of " in owner else 1 + (owner in with_state)


_OF_PACKAGES = 3  # what their components do not restore they compute anew, as their tests hold


def _print_failure(
    whole: Mapping[Place, Facts],
    killed: Mapping[Place, Facts],
    unstable: Collection[Fact],
    at: Place,
) -> None:
    """Print what was not restored, and what then differed.

    Args:
        whole: the facts of a run without kills.
        killed: those of the one that was killed.
        unstable: what differs in any case.
        at: where the first difference was found.
    """
    print(f"DIFFERS: the state of epoch {at[1]}, step {at[2]} is not that of a run without kills")
    with_state = {_owner(fact) for fact in whole[at] if fact[0] == "components"}
    is_captured = False
    for (saver, epoch, step, what), resumed in killed.items():
        continued = whole.get((saver, epoch, step, CONTINUED))
        if what == RESUMED and continued:
            different = _differing(continued, resumed, unstable)
            lost = [fact for fact in different if fact[0] in _NOT_SAVED]
            lost.sort(key=lambda fact: _likeliness(fact, with_state))
            own = [fact for fact in lost if _likeliness(fact, with_state) < _OF_PACKAGES]
            is_captured |= any(fact[0] == CAPTURED for fact in own)
            title = f"not restored when it resumed at epoch {epoch}, step {step}"
            _print_values(title, own or lost, continued, resumed)
    different = _differing(whole[at], killed[at], unstable)
    _print_values(
        "different then",
        [fact for fact in different if fact[0] not in _NOT_SAVED],
        whole[at],
        killed[at],
    )
    print(
        "What training depends on has to be in a state: return it from state_dict() of its\n"
        "component, and restore it in load_state_dict()."
    )
    if is_captured:
        print(
            "Variables of functions are in no state. Make a generator an attribute of the data\n"
            "set, the model or a component, where it is found, saved and restored."
        )


def _print_values(title: str, facts: list[Fact], expected: Facts, actual: Facts) -> None:
    if facts:
        print(f"  {title}:")
    for fact in facts[:_N_SHOWN]:
        one, other = expected.get(fact, "nothing"), actual.get(fact, "nothing")
        values = f"{one} without kills, {other} resumed"
        if one.partition(DIGEST)[0] == other.partition(DIGEST)[0]:
            values = f"other values, {one.partition(DIGEST)[0]}"
        print(f"    {_described(fact)}: {values}")
    if facts[_N_SHOWN:]:
        print(f"    and {len(facts) - _N_SHOWN} more")
