"""loop.manifest(): what runs, as data."""

from __future__ import annotations

import enum
import functools
import json
import math
import types
from pathlib import Path

import numpy
import pytest
import torch
from loops import make_component, make_loop, named

from ttl_core import LoopComponent, use


def test_the_manifest_is_what_runs_as_data(configurable):
    """Each component is listed with position, origin, whether it is enabled, and configuration."""
    loop = make_loop(
        named("a"), use(configurable, name="mine", path="runs/a", keep=[1, None, True])
    )
    loop.components.disable("a")
    expected = [
        {
            "position": 0,
            "name": "a",
            "plugin": None,
            "class": "loops.Part",
            "distribution": None,
            "version": None,
            "enabled": False,
            "bundles": [],
            "config": {},
        },
        {
            "position": 1,
            "name": "mine",
            "plugin": "configurable",
            "class": "ttl_configurable.Configurable",
            "distribution": "ttl-configurable",
            "version": "1.2.3",
            "enabled": True,
            "bundles": [],
            "config": {"path": "runs/a", "keep": [1, None, True]},
        },
    ]
    assert expected == loop.manifest()


def test_the_manifest_of_an_empty_list_is_empty():
    """A list without components is a manifest without entries."""
    assert [] == make_loop().manifest()


class Config:
    """A class with a method."""

    def method(self): ...


def function():
    """Do nothing."""


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Loud(str):
    """A string of another type."""


class AnyAttribute:
    """An object that has every attribute."""

    def __getattr__(self, name):
        return name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.1, 0.1),
        ("text", "text"),
        ([1, [2]], [1, [2]]),
        ((1, (2,)), [1, [2]]),
        ({"a": {"b": (1,)}}, {"a": {"b": [1]}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "a", None: {(1, 2): "b"}}, {"1": "a", "None": {"(1, 2)": "b"}}),
        ({1, 2}, {"$object": "builtins.set"}),
        (b"x", {"$object": "builtins.bytes"}),
        (1j, {"$object": "builtins.complex"}),
        (-math.inf, {"$float": "-inf"}),
        ({"$ref": "a:b"}, {"$$ref": "a:b"}),
        (Color.RED, {"$ref": f"{__name__}:Color.RED"}),
        (Level.LOW, 1),
        (Loud("x"), "x"),
        (Config, {"$ref": f"{__name__}:Config"}),
        (Config.method, {"$ref": f"{__name__}:Config.method"}),
        (Config().method, {"$object": f"{__name__}.Config.method"}),
        (function, {"$ref": f"{__name__}:function"}),
        (lambda: 0, {"$object": f"{__name__}.<lambda>"}),
        (functools.partial(function, 1), {"$object": "functools.partial"}),
        (functools.partial(len, x=(1,)), {"$ref": "builtins:len", "x": [1]}),
        (functools.partial(lambda x: x, x=1), {"$object": "functools.partial"}),
        (len, {"$ref": "builtins:len"}),
        (torch.ones(2), {"$object": "torch.Tensor"}),
        (torch.float32, {"$object": "torch.dtype"}),
        (torch.device("cpu"), {"$object": "torch.device"}),
        (torch.optim.SGD, {"$ref": "torch.optim.sgd:SGD"}),
        (torch.nn.Linear(1, 1), {"$object": "torch.nn.modules.linear.Linear"}),
        (numpy.float64(0.5), 0.5),
        (numpy.float32(0.5), 0.5),
        (numpy.int64(3), 3),
        (numpy.bool_(True), True),
        (numpy.ones(2), {"$object": "numpy.ndarray"}),
        (Path("a"), "a"),
        (object(), {"$object": "builtins.object"}),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_configuration_in_the_manifest_is_json(configurable, value, expected):
    """Plain values are kept, paths are texts, references or names stand for all others."""
    (entry,) = make_loop(use(configurable, option=value)).manifest()
    assert {"option": expected} == json.loads(json.dumps(entry, allow_nan=False))["config"]


def test_of_a_component_made_by_hand_what_it_keeps_of_its_arguments_is_listed():
    """These are numbers, texts and paths, as attributes of the same names, which may be private."""

    class Part(LoopComponent):
        def __init__(self, rate, path, *, text, other=None, lost=1, name="part"):
            self.rate, self.path, self._text, self.other, self.name = rate, path, text, other, name
            self.more = 3

    (entry,) = make_loop(Part(0.5, Path("a"), text="b", other=torch.ones(2))).manifest()
    assert {"rate": 0.5, "path": "a", "text": "b"} == entry["config"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [{"x": math.nan}]], ids=repr)
def test_numbers_that_are_no_json_are_written_in_another_way(configurable, value):
    """NaN and infinity are no JSON values, and strict readers refuse a file that holds them."""
    manifest = make_loop(use(configurable, option=value)).manifest()
    assert manifest == json.loads(json.dumps(manifest, allow_nan=False))


@pytest.mark.parametrize(
    "value",
    [str.lower, (1).__add__, int.__add__, torch.Tensor.add, torch.relu, numpy.add],
    ids=lambda value: type(value).__name__,
)
def test_functions_that_are_not_written_in_python_are_named_too(configurable, value):
    """The manifest holds a name for each of them, although some have no module."""
    (entry,) = make_loop(use(configurable, function=value)).manifest()
    (name,) = json.loads(json.dumps(entry))["config"]["function"].values()
    assert str is type(name)


def test_an_object_that_has_every_attribute_is_named_by_its_class(configurable):
    """The manifest uses no attributes of an object, as configuration objects may have any."""
    (entry,) = make_loop(use(configurable, option=AnyAttribute())).manifest()
    assert {"option": {"$object": f"{__name__}.AnyAttribute"}} == entry["config"]


def test_the_manifest_can_be_taken_in_a_run(configurable):
    """A component can take the manifest from inside a run."""
    found = []
    loop = make_loop(
        configurable, make_component(on_train_begin=lambda loop: found.extend(loop.manifest()))
    )
    loop.train(0)
    assert ["configurable", "part"] == [entry["name"] for entry in found]
