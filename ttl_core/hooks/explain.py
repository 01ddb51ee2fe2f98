"""Explanations: the call order of each point, and the reasons for it, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ttl_core.errors import TTLError, UnknownPointError
from ttl_core.other_libraries import suggest_point

if TYPE_CHECKING:
    import pluggy

    from ttl_core.hooks.manager import HookManager
    from ttl_core.hooks.member import Member


class Explanation(str):
    """Text whose repr is itself, so that a notebook shows it as it would be printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def table(rows: Iterable[Sequence[str]], gap: str = "  ") -> str:
    """Return rows of cells as lines of aligned columns.

    Example:
        >>> print(table([["a", "1"], ["long", "2"]]))
        a     1
        long  2
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def explain_list(members: Sequence[Member], manager: HookManager) -> str:
    """Return the members of a list, and the call order of each point that they implement."""
    if not members:
        return "no components"
    rows = [
        [f"{i:2}", member.name, member.origin(), _why_disabled(member)]
        for i, member in enumerate(members)
    ]
    text = table([[" #", "component", "from", ""], *rows])
    try:
        points = manager.points_in_use()
    except TTLError as error:
        return f"{text}\n\n{error}"
    indent = max(map(len, points), default=0) + 2
    orders = [
        textwrap.fill(
            point.ljust(indent)
            + ", ".join(_called(impl, manager) for impl in manager.implementations(point)),
            width=80,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for point in points
    ]
    return "\n".join([text, "", *orders]) if orders else text


def explain_points(point: str | None, members: Sequence[Member], manager: HookManager) -> str:
    """Return the implementations of a point, or of all, in call order, each with its reason.

    Args:
        point: the name of the point, or None for all that are implemented.
        members: the members of the list, in order.
        manager: the manager of their loop.

    Raises:
        UnknownPointError: there is no such point.
    """
    in_use = manager.points_in_use()
    known = manager.points()
    if point is None:
        texts = [explain_points(p, members, manager) for p in in_use]
        nothing = "no callback point is implemented" if members else "no components"
        return "\n\n".join(texts) or nothing
    if point not in known:
        raise UnknownPointError(
            f"{point!r} is not a callback point. {suggest_point(point, known)}"
            f"The points are: {', '.join(known)}"
        )
    position = {id(member.component): i for i, member in enumerate(members)}
    rows = []
    for number, impl in enumerate(manager.implementations(point), 1):
        member = manager.member_of(impl)
        if id(member.component) not in position:
            continue  # of another list, where this one is no longer the loop's
        reasons = [f"position {position[id(member.component)]}", *_options(impl)]
        rows.append([f"{number:3}", member.name, member.origin(), ", ".join(reasons)])
    return f"{point}\n" + (table(rows) if rows else "  not implemented")


def _options(impl: pluggy.HookImpl) -> list[str]:
    options = {"wrapper": impl.wrapper, "tryfirst": impl.tryfirst, "trylast": impl.trylast}
    return [option for option, is_set in options.items() if is_set]


def _called(impl: pluggy.HookImpl, manager: HookManager) -> str:
    options = _options(impl)
    name = manager.member_of(impl).name
    return f"{name} ({', '.join(options)})" if options else name


def _why_disabled(member: Member) -> str:
    if member.is_disabled_by_environment:
        return "disabled by TTL_DISABLE"
    return "" if member.is_enabled else "disabled"
