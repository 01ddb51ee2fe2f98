"""What the loop itself costs, with steps that do nothing."""

import contextlib

import pluggy
import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, hookspec, use
from ttl_core.hookspecs import POINTS, CallbackPoints

pytestmark = pytest.mark.bench

BATCH_POINTS = (
    "on_grads_reset",
    "on_batch_begin",
    "on_forward_pass",
    "on_loss_compute",
    "on_backward_pass",
    "on_optim_step",
    "on_batch_end",
)
N_BATCHES = 10_000


class SeedComponent:
    """A component of the seed: every callback is a no-op, which is called."""

    def _nothing(self, loop):
        pass

    on_train_begin = on_epoch_begin = on_epoch_end = on_train_end = _nothing
    on_grads_reset = on_batch_begin = on_forward_pass = on_loss_compute = _nothing
    on_backward_pass = on_optim_step = on_batch_end = _nothing


class SeedStyleLoop:
    """A loop that dispatches as the seed does: for every point, getattr on every component."""

    def __init__(self, model, components, train_data):
        self.model, self.components, self.train_data = model, list(components), train_data

    def call(self, *points):
        for callback in [getattr(c, point) for point in points for c in self.components]:
            callback(self)

    def train(self, n_epochs):
        self.optim_step_num = 0
        self.is_training = True
        self.call("on_train_begin")
        for _ in range(n_epochs):
            self.model.train()
            with contextlib.nullcontext():
                self.call("on_epoch_begin")
                for self.batch_num, self.batch in enumerate(self.train_data):  # noqa: B020
                    if self.is_training:
                        self.call("on_grads_reset")
                    self.call("on_batch_begin")
                    self.call("on_forward_pass")
                    self.call("on_loss_compute")
                    if self.is_training:
                        self.call("on_backward_pass")
                        self.call("on_optim_step")
                        self.optim_step_num += 1
                    self.call("on_batch_end")
                self.call("on_epoch_end")
        self.call("on_train_end")


def component(base, points):
    """Return a component with methods of its own for some points, which do nothing."""
    namespace = {}
    for point in points:
        exec(f"def {point}(self, loop): pass", namespace)
    return type("Nothing", (base,), {point: namespace[point] for point in points})()


CASES = pytest.mark.parametrize(
    ("n_components", "n_points", "limit"), [(1, 7, 0.35), (5, 7, 0.5), (10, 2, 0.22)]
)
DATA = range(N_BATCHES)


def points_of(n_components, n_points):
    """Return the points that each component implements, spread over the batch."""
    return [
        [BATCH_POINTS[(i * n_points + j) % 7] for j in range(n_points)] for i in range(n_components)
    ]


def compare(assert_ratio, what, loop, points, limit):
    """Measure a loop against a loop of the seed with components of the same points."""
    seed = SeedStyleLoop(loop.model, [component(SeedComponent, p) for p in points], DATA)
    assert_ratio(
        f"empty step, components x points: {len(points)} x {len(points[0])}{what}",
        lambda: loop.train(1),
        "getattr on every component at every point",
        lambda: seed.train(1),
        limit=limit,
        per=N_BATCHES,
    )


@CASES
def test_the_whole_loop_against_the_seed(assert_ratio, n_components, n_points, limit):
    """An empty step in the whole loop costs a fraction of what it costs in the seed."""
    points = points_of(n_components, n_points)
    loop = TrainTestLoop(torch.nn.Identity(), [component(LoopComponent, p) for p in points], DATA)
    compare(assert_ratio, "", loop, points, limit)


@CASES
def test_the_whole_loop_after_validate(assert_ratio, n_components, n_points, limit):
    """An empty step costs no more after validate() was called and vars(loop) was read.

    In CPython 3.11, reading vars() of an object with few attributes makes them slower to access.
    """
    points = points_of(n_components, n_points)
    components = [component(LoopComponent, p) for p in points]
    loop = TrainTestLoop(torch.nn.Identity(), components, DATA, valid_data=[0])
    loop.validate()
    assert vars(loop)
    compare(assert_ratio, ", after validate()", loop, points, limit)


class EnableLate(LoopComponent):
    """A component that has another one enabled in the middle of each run, and disabled after it."""

    def on_epoch_begin(self, loop):
        """Enable it, inside the epoch."""
        loop.components.enable("late")

    def on_train_end(self, loop):
        """Disable it again."""
        loop.components.disable("late")


class Late(LoopComponent):
    """A component whose around-hooks are entered when it is enabled."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        """Surround the rest of the run."""
        return (yield)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        """Surround the rest of the epoch."""
        return (yield)


@CASES
def test_the_whole_loop_with_a_component_enabled_in_mid_run(
    assert_ratio, n_components, n_points, limit
):
    """An empty step costs no more where a component entered run and epoch in the middle."""
    points = points_of(n_components, n_points)
    components = [component(LoopComponent, p) for p in points]
    loop = TrainTestLoop(torch.nn.Identity(), [EnableLate(), Late(), *components], DATA)
    loop.components.disable("late")
    compare(assert_ratio, ", enabled in mid-run", loop, points, limit)


def test_a_hook_with_two_wrappers_against_pluggy(assert_ratio):
    """Wrappers that are written out cost a fraction of pluggy's own call of them."""

    class Wrapper(LoopComponent):
        @hookimpl(wrapper=True)
        def on_batch_end(self, loop):
            return (yield)

    plain = component(LoopComponent, ["on_batch_end"])
    loop = TrainTestLoop(torch.nn.Identity(), [Wrapper(), Wrapper(), plain], DATA)
    manager = pluggy.PluginManager("ttl")
    manager.add_hookspecs(CallbackPoints)
    mark = pluggy.HookimplMarker("ttl")

    class PluggyWrapper:
        @mark(wrapper=True)
        def on_batch_end(self, loop):
            return (yield)

    class PluggyPlain:
        @mark
        def on_batch_end(self, loop):
            pass

    for plugin in (PluggyPlain(), PluggyWrapper(), PluggyWrapper()):
        manager.register(plugin)

    def call_often(hook):
        for _ in range(N_BATCHES):
            hook.on_batch_end(loop=loop)

    assert_ratio(
        "a hook with two wrappers",
        lambda: call_often(loop.hook),
        "the same in pluggy",
        lambda: call_often(manager.hook),
        limit=0.4,
        per=N_BATCHES,
    )


class Points:
    """The callback point of a provider."""

    @hookspec
    def provider_more(self, loop):
        """Fire never."""


class Provider(LoopComponent):
    """A component that provides a callback point, and implements it."""

    hookspecs = Points

    @hookimpl
    def provider_more(self, loop):
        """Do nothing."""


@CASES
def test_components_that_are_disabled_or_provide_points_cost_nothing(
    assert_ratio, n_components, n_points, limit
):
    """The limits are the same with disabled components and with points of plugins in the list."""
    points = points_of(n_components, n_points)
    disabled = [component(LoopComponent, BATCH_POINTS) for _ in range(5)]
    enabled = [component(LoopComponent, p) for p in points]
    loop = TrainTestLoop(torch.nn.Identity(), [Provider(), *disabled, *enabled], DATA)
    loop.components.disable(*disabled)
    compare(assert_ratio, ", 5 disabled", loop, points, limit)


def test_a_point_of_a_plugin_against_pluggy(assert_ratio):
    """A call of a plugin's point costs a fraction of what it costs in pluggy."""
    loop = TrainTestLoop(torch.nn.Identity(), [Provider()], DATA)
    manager = pluggy.PluginManager("ttl")
    manager.add_hookspecs(Points)
    manager.register(Provider())

    def call_often(hook):
        for _ in range(N_BATCHES):
            hook.provider_more(loop=loop)

    assert_ratio(
        "a call of a plugin's point, 1 implementation",
        lambda: call_often(loop.hook),
        "the same in pluggy",
        lambda: call_often(manager.hook),
        limit=0.5,
        per=N_BATCHES,
    )


def test_an_edit_of_a_long_list_against_registering_with_pluggy(assert_ratio):
    """After an edit of 30 components with 16 points each, rebuilding all hooks is cheap."""
    points = [p for p in POINTS if p not in ("around_run", "around_epoch")]
    components = [component(LoopComponent, points) for _ in range(30)]
    loop = TrainTestLoop(torch.nn.Identity(), components, [0])
    loop.components.append(LoopComponent())
    mark = pluggy.HookimplMarker("ttl")
    plugins = [
        type("Plugin", (), {p: mark(getattr(type(c), p)) for p in points})() for c in components
    ]

    def edit_and_rebuild():
        loop.components.reverse()
        loop.train(1)
        loop.test([0])

    def register():
        manager = pluggy.PluginManager("ttl")
        manager.add_hookspecs(CallbackPoints)
        for plugin in plugins:
            manager.register(plugin)

    assert_ratio(
        "an edit of 30 components of 16 points, and a run",
        edit_and_rebuild,
        "registering them with a bare pluggy manager",
        register,
        limit=1.5,
        unit="ms",
    )


def toggled_components():
    """Return a loop of 21 components with four points each, and the same as plugins of pluggy."""
    points = ["on_train_begin", "on_batch_end", "on_epoch_end", "on_safe_point"]
    loop = TrainTestLoop(
        torch.nn.Identity(), [component(LoopComponent, points) for _ in range(21)], [0]
    )
    manager, mark = pluggy.PluginManager("ttl"), pluggy.HookimplMarker("ttl")
    manager.add_hookspecs(CallbackPoints)
    for c in loop.components:
        plugin = type("Plugin", (), {p: mark(getattr(type(c), p)) for p in points})()
        manager.register(plugin, c.name)
    return loop, manager


def test_a_toggle_against_registering_with_pluggy(assert_ratio):
    """Toggling one of 21 components costs little more than bare pluggy, which checks nothing."""
    loop, manager = toggled_components()
    last = loop.components[-1]
    name = loop.components.names()[-1]

    def toggle():
        for change in (loop.components.disable, loop.components.enable) * 50:
            change(last)
            loop.hook.on_batch_end(loop=loop)

    def register():
        for _ in range(50):
            plugin = manager.unregister(name=name)
            manager.hook.on_batch_end(loop=None)
            manager.register(plugin, name)
            manager.hook.on_batch_end(loop=None)

    assert_ratio(
        "toggling one of 21 components, and the next batch",
        toggle,
        "unregistering and registering it with pluggy",
        register,
        limit=3.0,
        per=100,
    )


def test_enabling_what_is_enabled_costs_nothing(assert_ratio):
    """No hook is compiled again."""
    loop, _ = toggled_components()
    last = loop.components[-1]

    def change_often(*changes):
        for change in changes * (100 // len(changes)):
            change(last)
            loop.hook.on_batch_end(loop=loop)

    assert_ratio(
        "enabling what is enabled, and the next batch",
        lambda: change_often(loop.components.enable),
        "toggling it, and the next batch",
        lambda: change_often(loop.components.disable, loop.components.enable),
        limit=0.35,
        per=100,
    )


def test_a_loop_of_names_against_one_of_objects(assert_ratio):
    """Names cost little more than the classes that they stand for."""
    config = {
        **{name: {} for name in ("metrics", "progress", "ema", "nan-guard", "amp")},
        "grad-clip": {"max_norm": 1.0},
        "early-stopping": {"monitor": "valid/loss"},
        "lr-warmup": {"n_steps": 10},
        "time-limit": {"minutes": 10},
    }
    specs = [use(name, **its) for name, its in config.items()]
    classes = [type(c) for c in TrainTestLoop(torch.nn.Identity(), specs).components]

    def make_components():
        return [cls(**its) for cls, its in zip(classes, config.values(), strict=True)]

    assert_ratio(
        "making a loop of nine names",
        lambda: TrainTestLoop(torch.nn.Identity(), specs),
        "making it of nine objects",
        lambda: TrainTestLoop(torch.nn.Identity(), make_components()),
        limit=3,
        unit="ms",
    )
