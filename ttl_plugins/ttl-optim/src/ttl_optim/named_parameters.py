"""Parameters by patterns of their names, and freezing them for a while."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ttl_core import ArgumentError

if TYPE_CHECKING:
    from torch.nn import Parameter


def matching_names(pattern: str, parameters: Mapping[str, Parameter], component: str) -> list[str]:
    """Return the names that a pattern matches.

    Args:
        pattern: the pattern, as `fnmatch` has them.
        parameters: the parameters of a model by name.
        component: the name of the component, for the error.

    Raises:
        ArgumentError: it matches none.
    """
    matching = [name for name in parameters if fnmatchcase(name, pattern)]
    if not matching:
        # not did_you_mean: a pattern is rarely close enough to one complete name
        nearest = difflib.get_close_matches(pattern, parameters, n=3, cutoff=0)
        raise ArgumentError(
            f"{component!r} has the pattern {pattern!r}, which matches no parameter of the "
            f"model. The nearest names are: {', '.join(nearest) or 'none, it has none'}"
        )
    return matching


@contextlib.contextmanager
def frozen(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Freeze parameters inside a with block, and restore `requires_grad`.

    Args:
        parameters: parameters that require gradients.
    """
    try:
        for parameter in parameters:
            parameter.requires_grad = False
            parameter.grad = None  # with zeros an optimizer would step too
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True
