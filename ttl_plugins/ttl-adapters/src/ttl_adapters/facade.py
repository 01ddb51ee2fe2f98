"""What callbacks get in place of the objects of their libraries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch

from ttl_core import TTLError
from ttl_core.arguments import did_you_mean


class UnsupportedAccessError(TTLError, AttributeError):
    """A callback uses what its adapter does not have."""


class Facade:
    """An object that a callback gets in place of one of its library.

    What it does not have is an error that names it, where it is read as where it is set.

    Args:
        path: how the callback writes it: "trainer.strategy".
        callback: the callback.
        **members: its attributes.
    """

    computed: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    """The attributes that follow the loop, each as a function of it."""

    settable: ClassVar[Collection[str]] = ()
    """The attributes that a callback may set."""

    instead: ClassVar[Mapping[str, str]] = {}
    """What there is in place of attributes that it does not have."""

    def __init__(self, path: str, callback: object, **members: Any) -> None:
        vars(self).update(_path=path, _callback=callback, _loop=None, **members)

    def set(self, **members: Any) -> None:
        """Set attributes that the callback may not set.

        Args:
            **members: the attributes.
        """
        vars(self).update(members)

    def __getattr__(self, name: str) -> Any:
        own = getattr(type(self), name, None)
        if isinstance(own, property) and own.fget:  # whose own AttributeError has led here
            return own.fget(self)
        if name in self.computed:
            return self.computed[name](vars(self)["_loop"])
        if name.startswith("__"):  # a protocol of Python that is looked for
            raise AttributeError(name)
        raise self.unsupported(name, "uses")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.settable:
            raise self.unsupported(name, "sets")
        object.__setattr__(self, name, value)

    def unsupported(self, name: str, does: str) -> UnsupportedAccessError:
        """Return the error for an attribute.

        Args:
            name: the attribute.
            does: what the callback does with it: "uses" or "sets".
        """
        path, callback = vars(self)["_path"], type(vars(self)["_callback"]).__name__
        if name in self.instead:
            there = f"Instead: {self.instead[name]}"
        else:
            names = {*vars(self), *dir(type(self)), *self.computed} - _OWN
            names = {n for n in names if n[0] != "_"} if does == "uses" else {*self.settable}
            there = f"{did_you_mean(name, names)}There is: {', '.join(sorted(names)) or 'nothing'}"
        return UnsupportedAccessError(
            f"{callback} {does} {path}.{name}, which ttl-adapters does not support. {there}"
        )


_OWN = frozenset(dir(Facade))

STOP_FLAG = property(
    lambda self: self._adapter.should_stop,
    lambda self, should_stop: setattr(self._adapter, "should_stop", bool(should_stop)),
    doc="Whether the callback asked for the end of training.",
)
"""The attribute by which a callback ends training, whatever it is called."""


class Metrics(dict[str, Any]):
    """Values by name, which are found by other names too.

    Args:
        values: the values by the names that they are listed by.
        aliases: for other names, the names that they stand for.

    Example:
        >>> logs = Metrics({"val_loss": 0.5}, {"valid/loss": "val_loss"})
        >>> logs["valid/loss"], logs.get("valid/loss"), "valid/loss" in logs, list(logs)
        (0.5, 0.5, True, ['val_loss'])
    """

    def __init__(self, values: Mapping[str, Any], aliases: Mapping[str, str]) -> None:
        super().__init__(values)
        self.aliases = dict(aliases)

    def __missing__(self, name: str) -> Any:
        if self.aliases.get(name) in self:
            return self[self.aliases[name]]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or super().__contains__(self.aliases.get(str(name)))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name, or a default.

        Args:
            name: the name.
            default: what to return where there is none.
        """
        return self[name] if name in self else default  # noqa: SIM401  (dict.get knows no alias)


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """Return the name of a logged value as a library writes it.

    Args:
        name: the name, as "valid/loss".
        prefixes: what the library writes for each phase.

    Example:
        >>> renamed("valid/easy/loss", {"train": "", "valid": "val_"}), renamed("n", {})
        ('val_easy_loss', 'n')
    """
    phase, _, rest = name.partition("/")
    return prefixes[phase] + rest.replace("/", "_") if phase in prefixes and rest else name


def as_number(value: Any) -> Any:
    """Return a logged value as a Python number, if it is a tensor of one.

    Args:
        value: the value.
    """
    is_number = isinstance(value, torch.Tensor) and value.numel() == 1
    return value.item() if is_number else value


def as_logs(values: Mapping[str, Any], prefixes: Mapping[str, str]) -> Metrics:
    """Return logged values as a library has them, which are found by the names of ttl too.

    Args:
        values: the values by the names of ttl.
        prefixes: what the library writes for each phase.

    Example:
        >>> as_logs({"valid/loss": torch.tensor(0.5)}, {"valid": "eval_"})
        {'eval_loss': 0.5}
    """
    names = {name: renamed(name, prefixes) for name in values}
    return Metrics({names[name]: as_number(value) for name, value in values.items()}, names)
