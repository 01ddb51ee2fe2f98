"""Bundles: items of a list under one name."""

from __future__ import annotations

import pytest
from loops import call_order, make_loop, named

from ttl_core import ConfigurationError, PluginError, UnknownNameError, bundle

SOURCE = """
from ttl_core import LoopComponent, bundle, use

class Part(LoopComponent):
    def __init__(self, letter="p"):
        self.letter = letter

    def on_batch_end(self, loop):
        return self.letter

class Own(Part):
    def __init__(self):
        super().__init__("o")

def make_pair(letter="a", *, name="b"):
    return ["part", use("acme-parts/part", letter=letter, name=name), Own()]

def make_all(**config):
    return ["part", *bundle("pair", **config)]

def make_nothing():
    return []

def make_one():
    return "part"

def make_wrong():
    return ["part", Part]

def make_misspelled():
    return ["part", "Part"]

def make_absent():
    return ["part", use("nowhere", x=1)]

def fail():
    raise OSError("no disk")
"""
FUNCTIONS = {
    "pair": "make_pair",
    "all": "make_all",
    "nothing": "make_nothing",
    "one": "make_one",
    "wrong": "make_wrong",
    "misspelled": "make_misspelled",
    "absent": "make_absent",
    "failing": "fail",
}


@pytest.fixture(autouse=True)
def installed(install_distribution):
    """Install bundles, and the component that they are made of."""
    groups = {
        "ttl.components": {"part": "acme_parts:Part"},
        "ttl.bundles": {name: f"acme_parts:{function}" for name, function in FUNCTIONS.items()},
    }
    install_distribution("acme-parts", groups, SOURCE)


def test_the_items_of_a_bundle_are_unpacked_into_a_list():
    """Names, specs and components of a bundle are called in its order."""
    loop = make_loop(named("x"), *bundle("pair", letter="c"), named("y"))
    assert ["x", "part", "b", "own", "y"] == loop.components.names()
    assert "xpcoy" == call_order(loop)


def test_an_item_of_a_bundle_may_be_taken_out():
    """What bundle() returns is a plain list of items, as they are written in a script."""
    items = bundle("pair")
    assert ["use('part')", "use('acme-parts/part', name='b', letter='a')"] == [
        repr(item) for item in items[:2]
    ]
    assert "a" == call_order(make_loop(items[1]))


def test_the_manifest_says_where_each_component_came_from():
    """That is the bundle with its distribution; outside of bundles it is nothing."""
    rows = make_loop(named("x"), *bundle("acme-parts/pair")).manifest()
    pair = {"name": "pair", "distribution": "acme-parts", "version": "1.0"}
    assert [[], [pair], [pair], [pair]] == [row["bundles"] for row in rows]


def test_a_bundle_may_be_made_of_bundles():
    """The manifest has the outermost first, which is the one that the script names."""
    rows = make_loop(*bundle("all")).manifest()
    names = [[origin["name"] for origin in row["bundles"]] for row in rows]
    assert [["all"], *[["all", "pair"]] * 3] == names


def test_an_argument_of_a_bundle_may_be_called_name():
    """The name of the bundle is given by position."""
    assert ["part", "mine", "own"] == make_loop(*bundle("pair", name="mine")).components.names()


def test_a_bundle_may_be_empty():
    """Its configuration may leave nothing."""
    assert [] == bundle("nothing")


# -- errors ---------------------------------------------------------------------------------


def test_an_unknown_bundle_is_an_error_with_the_nearest_name():
    """The error lists the installed bundles."""
    with pytest.raises(UnknownNameError) as caught:
        bundle("pairs")
    text = "no bundle 'pairs' is installed. Did you mean 'pair'? Installed: absent, all, failing,"
    assert str(caught.value).startswith(text)


def test_a_bundle_is_no_component():
    """Each error shows how the other one is written."""
    with pytest.raises(UnknownNameError, match=r"There is a bundle of that name: write \*bundle\("):
        make_loop("pair")
    with pytest.raises(UnknownNameError, match=r"a component of that name: write use\('part'\)"):
        bundle("part")


@pytest.mark.parametrize("name", ["Pair", "acme-parts/Pair", 3], ids=repr)
def test_what_can_be_no_name_is_refused(name):
    """As for components, an invalid name gets the likely one."""
    with pytest.raises(UnknownNameError, match=r"cannot be a bundle's name|takes the name"):
        bundle(name)


def test_a_bundle_of_two_distributions_is_named_with_one(install_distribution):
    """The bare name is an error with the choices."""
    install_distribution("acme-other", {"ttl.bundles": {"pair": "acme_other:make_pair"}}, SOURCE)
    with pytest.raises(UnknownNameError, match="several distributions offer 'pair'"):
        bundle("pair")
    assert 3 == len(bundle("acme-other/pair"))


def test_configuration_that_a_bundle_does_not_accept_is_refused():
    """The error shows what it accepts."""
    with pytest.raises(ConfigurationError) as caught:
        bundle("pair", leter="c")
    expected = (
        "bundle 'pair' (acme-parts 1.0) does not accept bundle('pair', leter='c'): it has no "
        "argument 'leter'. Did you mean 'letter'? It accepts: letter='a', name='b'"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("one", "'acme_parts:make_one' returned 'part', which is no list of components"),
        ("wrong", "returned an unusable item 1: Part is a class, not a component"),
        ("misspelled", "returned an unusable item 1: 'Part' cannot be a component's name"),
    ],
)
def test_a_bundle_that_is_none_is_an_error_of_its_author(name, problem):
    """The error names the bundle, what it returned, and its distribution."""
    with pytest.raises(PluginError) as caught:
        bundle(name)
    assert str(caught.value).startswith(f"bundle {name!r} (acme-parts 1.0): its entry point ")
    assert problem in str(caught.value)
    assert str(caught.value).endswith("Report it to the author of acme-parts")


def test_an_exception_of_a_bundle_passes_with_a_note():
    """The note names the bundle."""
    with pytest.raises(OSError, match="no disk") as caught:
        bundle("failing")
    assert ["ttl: raised by bundle 'failing' (acme-parts 1.0)"] == caught.value.__notes__


def test_an_unknown_component_of_a_bundle_says_which_bundle():
    """The error is raised when the item enters a list, and its note names the bundle."""
    with pytest.raises(UnknownNameError, match="no component 'nowhere' is installed") as caught:
        make_loop(*bundle("absent"))
    expected = ["ttl: use('nowhere', x=1) comes from bundle 'absent' (acme-parts 1.0)"]
    assert expected == caught.value.__notes__


def test_a_component_is_of_a_bundle_in_every_list():
    """An item may be used in several loops."""
    items = bundle("pair")
    for _ in range(2):
        assert ["pair"] * 3 == [r["bundles"][0]["name"] for r in make_loop(*items).manifest()]
