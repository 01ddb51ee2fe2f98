"""`ttl hooks`: the callback points of the core."""

from __future__ import annotations

from ttl_core.cli.text import indent, summary


def list_hooks() -> int:
    """Print the callback points of the core, and return the exit status."""
    import inspect

    from ttl_core.hookspecs import POINTS, CallbackPoints, since

    for point in POINTS:
        spec = getattr(CallbackPoints, point)
        arguments = ", ".join(list(inspect.signature(spec).parameters)[1:])
        print(f"{point}({arguments})  since {since(point)}")
        print(indent(summary(spec)))
    return 0
