"""What runs when, and why, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ttl_core.errors import TTLError, UnknownPointError
from ttl_core.ordering import did_you_mean

if TYPE_CHECKING:
    import pluggy

    from ttl_core.manager import HookManager, Member


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
        [f"{i:2}", member.name, member.origin(), _why_off(member)]
        for i, member in enumerate(members)
    ]
    text = table([[" #", "component", "from", ""], *rows])
    try:
        points = manager.points_in_use()
    except TTLError as error:
        return f"{text}\n\n{error}"
    orders = [
        [point, ", ".join(_called(impl, manager) for impl in manager.implementations(point))]
        for point in points
    ]
    return f"{text}\n\n{table(orders)}" if orders else text


def explain_points(point: str | None, members: Sequence[Member], manager: HookManager) -> str:
    """Return the implementations of a point, or of all, in call order, each with its reason.

    Args:
        point: the name of the point, or None for all that somebody implements.
        members: the members of the list, in order.
        manager: the manager of their loop.

    Raises:
        UnknownPointError: there is no such point.
    """
    in_use = manager.points_in_use()
    known = list(vars(manager.hook))
    if point is None:
        return "\n\n".join(explain_points(p, members, manager) for p in in_use) or "no components"
    if point not in known:
        raise UnknownPointError(
            f"{point!r} is no callback point. {did_you_mean(point, known)}"
            f"The points are: {', '.join(known)}"
        )
    place = {id(member): i for i, member in enumerate(members)}
    rows = []
    for number, impl in enumerate(manager.implementations(point), 1):
        member = manager.member_of(impl)
        reasons = [*_options(impl), f"place {place[id(member)]} in the list"]
        rows.append([f"{number:3}", member.name, member.origin(), ", ".join(reasons)])
    return f"{point}\n" + (table(rows) if rows else "  nobody implements it")


def _options(impl: pluggy.HookImpl) -> list[str]:
    options = {"wrapper": impl.wrapper, "tryfirst": impl.tryfirst, "trylast": impl.trylast}
    return [option for option, is_set in options.items() if is_set]


def _called(impl: pluggy.HookImpl, manager: HookManager) -> str:
    options = _options(impl)
    name = manager.member_of(impl).name
    return f"{name} ({', '.join(options)})" if options else name


def _why_off(member: Member) -> str:
    if member.is_barred:
        return "off, by TTL_DISABLE"
    return "" if member.is_enabled else "off"
