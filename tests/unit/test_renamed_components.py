"""Entry points that have been renamed: former names still work, in code and in states."""

from __future__ import annotations

import pytest
from loops import make_component, make_loop
from recording import StateRecorder, messages_of

from ttl_core import UnknownNameError, arrange, use
from ttl_core.discovery import loading

SOURCE = """
from ttl_core import LoopComponent

class Clip(LoopComponent):
    def __init__(self, most=0):
        self.most = most

    def on_batch_end(self, loop):
        self.most += 1

    def state_dict(self):
        return {"most": self.most}

    def load_state_dict(self, state):
        self.most = state["most"]
"""
OLD = {"ttl.components": {"clip": "acme_clip:Clip"}}
NEW = {
    "ttl.components": {"norm-clip": "acme_clip:Clip"},
    "ttl.renamed": {"clip": "norm_clip"},
}
WARNING = (
    "the component 'clip' is now called 'norm-clip' (acme-clip 2.0); the former name still works. "
    "Write the new one"
)


@pytest.fixture
def install_old(install_distribution, monkeypatch):
    """Return a function that installs the version before."""
    monkeypatch.setattr(loading, "_reported", set())
    return lambda: install_distribution("acme-clip", OLD, SOURCE)


@pytest.fixture
def install_new(install_distribution, monkeypatch):
    """Return a function that installs the version in which the component has another name."""
    monkeypatch.setattr(loading, "_reported", set())
    return lambda: install_distribution("acme-clip", NEW, SOURCE, version="2.0")


@pytest.mark.parametrize("name", ["clip", "acme-clip/clip", "Acme.Clip/clip"])
def test_a_former_name_is_that_of_the_component(install_new, name):
    """The component has its new name in the list, and a warning says so once."""
    install_new()
    loops = []
    found = messages_of(lambda: loops.append(make_loop(name)), FutureWarning)
    assert [WARNING] == found
    assert [] == messages_of(lambda: make_loop(name, use(name, most=1)), FutureWarning)
    assert ["norm-clip"] == loops[0].components.names()
    assert "norm-clip" == loops[0].manifest()[0]["plugin"]


def test_the_warning_is_at_the_line_of_the_user(install_new):
    """It points at the script, not into ttl."""
    install_new()
    with pytest.warns(FutureWarning) as caught:
        arrange(["clip"])
    assert __file__ == caught[0].filename


def test_the_new_name_gives_no_warning(install_new):
    """Scripts that have been changed run as before."""
    install_new()
    assert [] == messages_of(lambda: make_loop("norm-clip"), FutureWarning)


def test_a_new_component_of_a_former_name_comes_first(install_new, install_component):
    """Where another distribution offers the name now, that is the one."""
    install_new()
    install_component("clip", SOURCE)
    assert ["ttl-clip"] == [row["distribution"] for row in make_loop("clip").manifest()]
    with pytest.warns(FutureWarning):
        assert ["norm-clip"] == make_loop("acme-clip/clip").components.names()


def test_a_list_finds_a_component_by_its_former_name(install_new):
    """Scripts toggle and look up components by names that they were written with."""
    install_new()
    components = make_loop("norm-clip", "norm-clip").components
    with pytest.warns(FutureWarning, match="'clip' is now called 'norm-clip'"):
        components.disable("clip#2")
    assert [True, False] == [components.is_enabled(c) for c in components]
    assert "clip" in components
    assert components[0] is components["clip"]


def test_a_list_prefers_a_component_that_has_the_name(install_new):
    """A former name is one only where no component has it."""
    install_new()
    other = make_component(name="clip")
    components = make_loop("norm-clip", other).components
    assert other is components["clip"]


def test_a_component_with_a_name_of_its_own_has_no_former_one(install_new):
    """Its name in the list was never that of its entry point."""
    install_new()
    components = make_loop(use("norm-clip", name="mine")).components
    assert "clip" not in components
    with pytest.raises(UnknownNameError, match="no component 'clip' is in the list"):
        components.disable("clip")


def test_hints_may_have_former_names(install_new):
    """A hint of another package was written before the component was renamed."""
    install_new()
    other = make_component(after="clip", requires="acme-clip/clip")
    loop = make_loop("norm-clip", other)
    del loop.components["part"]
    loop.components.insert(0, make_component(name="first"))
    loop.components.add(make_component(before="clip"))
    assert ["first", "part", "norm-clip"] == loop.components.names()
    assert arrange([other, "norm-clip"]) == ["norm-clip", other]


def test_the_environment_may_have_a_former_name(install_new, monkeypatch):
    """TTL_DISABLE disables the component, and does not say that it is not installed."""
    install_new()
    monkeypatch.setenv("TTL_DISABLE", "clip")
    assert not make_loop("norm-clip").components.is_enabled("norm-clip")


def test_a_state_is_found_under_the_former_name(install_old, install_new):
    """A run resumes from what an earlier version saved, each component from its own state."""
    install_old()
    recorder = StateRecorder()
    loop = make_loop("clip", use("clip", most=10), use("clip", most=20, name="mine"), recorder)
    loop.train(1)
    install_new()
    own = use("norm-clip", name="mine")
    resumed = make_loop("norm-clip", "norm-clip", own, StateRecorder())
    with pytest.warns(FutureWarning, match="'clip' is now called 'norm-clip'"):
        resumed.load_state_dict(recorder.states[-1])
    with pytest.warns(UserWarning, match="resumes from the state of acme-clip 1.0"):
        resumed.train(1)
    assert [3, 13, 23] == [component.most for component in resumed.components[:3]]


def test_the_version_of_a_state_is_found_under_the_former_name(install_distribution, monkeypatch):
    """A state of the present version is not taken for an older one."""
    monkeypatch.setattr(loading, "_reported", set())
    version_2 = SOURCE + "\n    state_version = 2\n"
    install_distribution("acme-clip", OLD, version_2)
    recorder = StateRecorder()
    make_loop("clip", recorder).train(1)
    upgrade = "\n    def upgrade_state(self, state, from_version):\n        raise AssertionError\n"
    install_distribution("acme-clip", NEW, version_2 + upgrade)
    resumed = make_loop("norm-clip", StateRecorder())
    with pytest.warns(FutureWarning, match="'clip' is now called 'norm-clip'"):
        resumed.load_state_dict(recorder.states[-1])
    resumed.train(1)
    assert 3 == resumed.components[0].most


def test_an_unknown_name_is_still_unknown(install_new):
    """The error suggests what is installed."""
    install_new()
    with pytest.raises(UnknownNameError, match="no component 'norm-clap' is installed"):
        make_loop("norm-clap")
