"""Arguments of the components of this repository, which are refused alike."""

import inspect
import tomllib
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ttl_core import ArgumentError

REQUIRED = {
    "keras-callback": {"callback": SimpleNamespace(on_epoch_end=print)},
    "seed": {"seed": 0},
    "supervised": {"loss_func": torch.nn.MSELoss(), "optimizer": torch.optim.SGD},
}


PROJECTS = sorted(Path(__file__).parents[2].glob("ttl_plugins/*/pyproject.toml"))


def flags(path):
    """Yield each argument that is True or False by default, with its component, of a package."""
    project = tomllib.loads(path.read_text())["project"]
    for name, target in project["entry-points"]["ttl.components"].items():
        module, _, attribute = target.partition(":")
        component = getattr(import_module(module), attribute)
        for argument in inspect.signature(component).parameters.values():
            if isinstance(argument.default, bool):
                yield partial(component, **REQUIRED.get(name, {})), argument.name


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_a_flag_is_true_or_false(path):
    """Not any text, which would count as True, as "no" from an environment variable."""
    for component, argument in flags(path):
        with pytest.raises(ArgumentError, match=f"{argument} is 'no', but has to be"):
            component(**{argument: "no"})
