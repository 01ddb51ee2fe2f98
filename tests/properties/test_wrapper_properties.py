"""Written-out wrappers, compared with pluggy's own way to call implementations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_core.hooks.compilation import NO_OPTIONS, Signature, compile_wrapped


class PlannedError(Exception):
    """An exception that implementations raise."""


KINDS = {"error": PlannedError, "stop": StopIteration, "exit": KeyboardInterrupt}


@dataclass
class Plan:
    """What a wrapper does before and after its yield."""

    before: str  # "pass", "raise", "return"
    after: str  # "pass", "replace", "raise", "swallow", "yield"
    kind: str


@dataclass
class Case:
    """Wrappers, outermost first, around plain implementations that return or raise."""

    wrappers: list[Plan]
    results: list[Any]
    first: bool
    log: list[Any] = field(default_factory=list)


def wrapper(case: Case, number: int, plan: Plan) -> Any:
    """Return a wrapper that acts as planned, and records what it sees."""

    def point(loop: object) -> Any:
        case.log.append(("before", number, loop))
        if plan.before == "raise":
            raise KINDS[plan.kind](f"before {number}")
        if plan.before == "return":
            return None
        try:
            result = yield
        except BaseException as exception:
            case.log.append(("exception", number, type(exception), exception.args))
            if plan.after == "swallow":
                return f"swallowed by {number}"
            if plan.after == "raise":
                raise KINDS[plan.kind](f"after {number}") from exception
            raise
        case.log.append(("result", number, result))
        if plan.after == "raise":
            raise KINDS[plan.kind](f"after {number}")
        if plan.after == "yield":
            yield
        return f"replaced by {number}" if plan.after == "replace" else result

    return point


def plain(case: Case, number: int, result: Any) -> Any:
    """Return an implementation that returns a result, or raises if it is an exception type."""

    def point(loop: object) -> Any:
        case.log.append(("plain", number, loop))
        if isinstance(result, type):
            raise result(f"plain {number}")
        return result

    return point


def implementations(case: Case) -> list[pluggy.HookImpl]:
    """Return the implementations in call order."""
    options: pluggy.HookimplOpts = {**NO_OPTIONS, "wrapper": True}
    return [
        *(
            pluggy.HookImpl(None, "ttl", wrapper(case, i, plan), options)
            for i, plan in enumerate(case.wrappers)
        ),
        *(
            pluggy.HookImpl(None, "ttl", plain(case, i, result), NO_OPTIONS)
            for i, result in enumerate(case.results)
        ),
    ]


def outcome(case: Case, call: Any) -> tuple[Any, ...]:
    """Return what a call returned or raised, with the causes, and what was recorded."""
    case.log.clear()
    try:
        result = ("returned", call())
    except BaseException as raised:
        chain, exception = [], raised
        while exception is not None:
            chain.append((type(exception), str(exception)))
            exception = exception.__cause__
        result = ("raised", chain)
    return *result, list(case.log)


plans = st.builds(
    Plan,
    st.sampled_from(["pass"] * 6 + ["raise", "return"]),
    st.sampled_from(["pass", "pass", "replace", "raise", "swallow"]),
    st.sampled_from(sorted(KINDS)),
)
cases = st.builds(
    Case,
    st.lists(plans, max_size=5),
    st.lists(st.sampled_from([None, 1, "two", *KINDS.values()]), max_size=4),
    st.booleans(),
)


def compiled(case: Case) -> Any:
    """Return a call of the written-out function."""
    signature = Signature(
        "point", ("loop",), {}, results="first" if case.first else "listed", keyword_only=True
    )
    call = compile_wrapped(signature, implementations(case))
    return lambda: call(loop="loop")


def executed(case: Case) -> Any:
    """Return a call through pluggy."""
    manager = pluggy.PluginManager("ttl")
    methods = implementations(case)[::-1]
    return lambda: manager._hookexec("point", methods, {"loop": "loop"}, case.first)


@given(cases)
@settings(deadline=None, max_examples=1500)
def test_written_out_wrappers_do_what_pluggys_do(case: Case) -> None:
    """The same results, the same exceptions with the same causes, the same calls in order."""
    assert outcome(case, executed(case)) == outcome(case, compiled(case))


@pytest.mark.parametrize("first", [True, False])
def test_wrappers_around_one_that_yields_twice_are_left(first: bool) -> None:
    """B7: pluggy leaves them open; the error is given to them instead."""
    passing, yielding = Plan("pass", "pass", "error"), Plan("pass", "yield", "error")
    case = Case([passing, yielding], [1], first)
    kind, (error, *_), log = outcome(case, compiled(case))
    assert ("raised", RuntimeError) == (kind, error[0])
    assert "has second yield" in error[1]
    assert ("exception", 0, RuntimeError) == log[-1][:3]
