"""loop.hook: the callables of all points."""

from __future__ import annotations

import pytest
from loops import make_component, make_loop, named

from ttl_core.hookspecs import POINTS


def returning(result):
    """Return a hook that returns `result`."""
    return lambda loop: result


def test_loop_hook_is_one_stable_object():
    """After an edit of the list, loop.hook is the same object and calls other components."""
    loop = make_loop(make_component(on_batch_end=lambda loop: "old"))
    hook = loop.hook
    loop.train(n_epochs=1)
    loop.components[0] = make_component(on_batch_end=lambda loop: "new")
    assert hook is loop.hook
    assert ["new"] == hook.on_batch_end(loop=loop)


def test_loop_hook_has_every_point():
    """Each core point is an attribute of loop.hook."""
    hook = make_loop().hook
    assert [] == [point for point in POINTS if not callable(getattr(hook, point, None))]


def test_an_unknown_point_is_no_attribute():
    """A misspelled point is an AttributeError."""
    with pytest.raises(AttributeError, match="on_batch_edn"):
        make_loop().hook.on_batch_edn(loop=None)


@pytest.mark.parametrize("has_been_called", [False, True])
def test_hooks_take_keywords_only(has_been_called):
    """Arguments by position are refused, from the first call on."""
    loop = make_loop(make_component(on_batch_end=lambda loop: None))
    if has_been_called:
        loop.hook.on_batch_end(loop=loop)
    with pytest.raises(TypeError, match="positional"):
        loop.hook.on_batch_end(loop)


@pytest.mark.parametrize("given", [{}, {"loop": None, "other": 1}], ids=["too few", "too many"])
def test_hooks_take_the_arguments_of_their_point(given):
    """A missing or an unknown argument is refused."""
    with pytest.raises(TypeError, match="argument"):
        make_loop().hook.on_batch_end(**given)


def test_a_hook_returns_the_results_that_are_not_none():
    """Results are in call order; None is no result, other empty values are."""
    results = [1, None, 0, [], "x"]
    loop = make_loop(*(make_component(on_batch_end=returning(result)) for result in results))
    assert [1, 0, [], "x"] == loop.hook.on_batch_end(loop=loop)


def test_a_hook_without_implementations_returns_no_results():
    """Without implementations the list is empty."""
    loop = make_loop()
    assert [] == loop.hook.on_batch_end(loop=loop)


@pytest.mark.parametrize(
    ("implementation", "expected"),
    [
        (lambda: "nothing", "nothing"),
        (lambda loop, metrics, level: (loop, metrics, level), ("L", "M", "V")),
        (lambda level: level, "V"),
        (lambda level, loop: (level, loop), ("V", "L")),
        (lambda metrics, level, loop: (metrics, level, loop), ("M", "V", "L")),
    ],
    ids=["none", "all", "one", "two, reversed", "all, in another order"],
)
def test_an_implementation_gets_the_arguments_that_it_names(implementation, expected):
    """Each implementation is passed what it names, in its own order."""
    loop = make_loop(make_component(on_log=implementation))
    assert [expected] == loop.hook.on_log(loop="L", metrics="M", level="V")


def test_the_loop_passes_the_arguments_that_an_implementation_names():
    """The calls that the loop makes itself follow the same rule."""
    seen = []
    logger = make_component(on_log=lambda level, metrics: seen.append((level, metrics)))
    make_loop(logger).log({"loss": 1})
    assert [("batch", {"loss": 1})] == seen


def test_disabled_components_are_not_called():
    """A hook calls enabled components only."""
    loop = make_loop(named("a"), named("b"))
    loop.components.disable("a")
    assert ["b"] == loop.hook.on_batch_end(loop=loop)


def test_a_hook_that_is_looked_up_again_follows_the_list():
    """B8: the attribute is that of the list as it is now; one that was kept is not."""
    loop = make_loop(named("a"))
    kept = loop.hook.on_batch_end
    loop.components[0] = named("b")
    assert (["a"], ["b"]) == (kept(loop=loop), loop.hook.on_batch_end(loop=loop))


def test_the_points_are_listed():
    """So that they can be completed in notebooks."""
    assert {"on_batch_end", "around_run"} <= set(dir(make_loop().hook))
