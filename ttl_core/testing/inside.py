"""What is inside of a component: its attributes, those of its class, and its modules' globals."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch

from ttl_core.components.component import LoopComponent
from ttl_core.components.stateful import kept_arguments
from ttl_core.state.protocol import has_state
from ttl_core.testing.outcome import Facts, as_text, plain_facts

_MAX_DEPTH = 4
_MAX_LENGTH = 200
_SCALARS = (type(None), bool, int, float, complex, str, bytes)


def state_facts(component: Any) -> Facts:
    """Return the state of a component by path; nothing if it has none."""
    if not has_state(component):
        return {}
    return plain_facts(component.state_dict(), "its state")


def public_facts(component: LoopComponent) -> Facts:
    """Return the public attributes and properties of a component that are plain values."""
    names = {name for name in vars(component) if name[0] != "_"}
    for cls in own_classes(component):
        names |= {n for n, v in vars(cls).items() if n[0] != "_" and isinstance(v, property)}
    found: Facts = {}
    for name in sorted(names):
        value = None
        with contextlib.suppress(Exception):  # of a property that has a value during runs only
            value = getattr(component, name)
        if _is_plain(value):
            found |= plain_facts(value, f"its attribute {name}")
    return found


def numbers_given(component: LoopComponent) -> dict[str, int | float]:
    """Return the numbers that a component keeps of its arguments, by the attributes' names."""
    return {
        attribute: value
        for name, value in kept_arguments(component).items()
        for attribute in (name, f"_{name}")
        if isinstance(value, int | float) and attribute in vars(component)
    }


_STEPS = re.compile("(?<!micro)(?<!micro_)(?<!sub)(?<!sub_)step")


def counts_of_steps(component: LoopComponent) -> dict[str, int]:
    """Return the whole numbers that a component calls steps, by the names of its attributes.

    Micro-steps and substeps are not among them, as both words are for batches that accumulate.
    """
    return {
        name: value
        for name, value in vars(component).items()
        if _STEPS.search(name) and type(value) is int
    }


def attribute_facts(component: LoopComponent) -> Facts:
    """Return all attributes of a component that are plain values, also those inside of others."""
    root = type(component).__module__.partition(".")[0]
    return dict(_walk(vars(component), "its attribute ", root, set()))


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number, text or tensor, or a list or dict of such."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (*_SCALARS, torch.Tensor))


def shared_facts(component: LoopComponent) -> Facts:
    """Return what instances of a class must not share: attributes, and where they may be kept.

    These are the attributes of the instance, those of its class, default values of arguments, and
    the global variables of the modules of its package.
    """
    root = type(component).__module__.partition(".")[0]
    found = attribute_facts(component)
    for cls in own_classes(component):
        attributes = {
            name: value
            for name, value in vars(cls).items()
            if not name.startswith("__") and not hasattr(value, "__get__")
        }
        found |= _walk(attributes, f"the class attribute {cls.__qualname__}.", root, set())
        for name, value in vars(cls).items():
            defaults = {**dict(enumerate(getattr(value, "__defaults__", None) or ()))}
            defaults |= getattr(value, "__kwdefaults__", None) or {}
            path = f"the default argument of {cls.__qualname__}.{name} "
            found |= _walk(defaults, path, root, set())
    for module in _modules_of(component):
        variables = {n: v for n, v in vars(module).items() if not n.startswith("__")}
        found |= _walk(variables, f"the global variable {module.__name__}.", root, set())
    return found


def kept_defaults(component: LoopComponent) -> Iterator[str]:
    """Yield in words the default values of arguments that an instance keeps, and could write to."""
    init = vars(type(component)).get("__init__")
    defaults = [
        *(getattr(init, "__defaults__", None) or ()),
        *(getattr(init, "__kwdefaults__", None) or {}).values(),
    ]
    for name, value in vars(component).items():
        is_written_to = isinstance(value, list | dict | set | deque)
        if is_written_to and any(value is default for default in defaults):
            kind = type(value).__name__
            yield f"the {kind} in its attribute {name!r}, which is the default of an argument"


def own_classes(component: LoopComponent) -> list[type]:
    """Return the classes of a component, without those of the core and of Python."""
    return [
        cls
        for cls in type(component).__mro__
        if cls.__module__.partition(".")[0] not in ("ttl_core", "builtins", "abc", "typing")
    ]


def _modules_of(component: LoopComponent) -> list[ModuleType]:
    """Return the modules of the package of a component; of a test, that module alone."""
    name = type(component).__module__
    root = name.partition(".")[0]
    if root in ("ttl_core", "__main__"):
        return []
    is_package = hasattr(sys.modules.get(root), "__file__") and "test" not in name
    names = [n for n in sys.modules if n.partition(".")[0] == root] if is_package else [name]
    return [sys.modules[n] for n in names if isinstance(sys.modules.get(n), ModuleType)]


def _walk(values: Any, path: str, root: str, seen: set[int], depth: int = 0) -> Iterator[Any]:
    """Yield the plain values in a mapping of values, by path."""
    for key, value in [*values.items()][:_MAX_LENGTH]:
        name = f"{path}{key}"
        if isinstance(value, (*_SCALARS, torch.Tensor)):
            if not isinstance(value, torch.Tensor) or value.numel() < _MAX_LENGTH:
                yield name, as_text(value)
            continue
        if id(value) in seen or depth > _MAX_DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, list | tuple | set | frozenset | deque):
            yield f"the length of {name}", str(len(value))
            items = dict(enumerate(value)) if not isinstance(value, set | frozenset) else {}
            yield from _walk(items, f"{name}, item ", root, seen, depth + 1)
        elif isinstance(value, dict):
            yield f"the length of {name}", str(len(value))
            yield from _walk(value, f"{name}, item ", root, seen, depth + 1)
        elif type(value).__module__.partition(".")[0] == root and hasattr(value, "__dict__"):
            is_followed = not isinstance(value, type | LoopComponent)
            yield from _walk(vars(value) if is_followed else {}, f"{name}.", root, seen, depth + 1)
