"""Arguments of the components of this repository, which are refused alike."""

import inspect
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ttl_core import ArgumentError

REQUIRED = {
    "alternating": {"losses": {"": torch.nn.MSELoss()}, "optimizers": {"": torch.optim.SGD}},
    "keras-callback": {"callback": SimpleNamespace(on_epoch_end=print)},
    "seed": {"seed": 0},
    "supervised": {"loss_func": torch.nn.MSELoss(), "optimizer": torch.optim.SGD},
}
PROJECTS = sorted(Path(__file__).parents[2].glob("ttl_plugins/*/pyproject.toml"))


def components() -> Iterator[tuple[str, Callable]]:
    """Yield what makes each component, by its name."""
    for path in PROJECTS:
        project = tomllib.loads(path.read_text())["project"]
        for name, target in project["entry-points"]["ttl.components"].items():
            module, _, attribute = target.partition(":")
            yield name, getattr(import_module(module), attribute)


def each_argument(is_meant: Callable[[inspect.Parameter], bool]):
    """Return a mark that gives a test the arguments that are meant, each with its component."""
    found = [
        pytest.param(partial(make, **REQUIRED.get(name, {})), each.name, id=f"{name} {each.name}")
        for name, make in components()
        for each in inspect.signature(make).parameters.values()
        if is_meant(each)
    ]
    assert found
    return pytest.mark.parametrize(("component", "argument"), found)


@each_argument(lambda one: isinstance(one.default, bool))
def test_a_flag_is_true_or_false(component, argument):
    """Not any text, which would count as True, as "no" from an environment variable."""
    with pytest.raises(ArgumentError, match=f"{argument} is 'no', but has to be"):
        component(**{argument: "no"})


@each_argument(lambda one: one.name.startswith("device"))
def test_a_device_is_one_of_torch(component, argument):
    """Before work starts, and not in the words of torch."""
    with pytest.raises(ArgumentError, match=f"{argument} is 'gpu', but .* as 'cuda', .*='auto'"):
        component(**{argument: "gpu"})
