"""The behaviour of `compile`."""

import copy
import logging
import pickle

import pytest
import torch
from ttl_compile import Compile

from ttl_core import ArgumentError, LoopComponent, use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")

VALID = ComponentConformance.make_data(2)
LENGTHS = [6, 4, 6, 6]


class Block(torch.nn.Module):
    """A block of a model."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, inputs):
        return inputs + self.linear(inputs).relu()


class Blocks(torch.nn.Module):
    """A model of equal blocks and a head."""

    def __init__(self, n=3):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(n))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


def state_of(model):
    """Return a copy of the state of a model."""
    return copy.deepcopy(dict(model.state_dict()))


def same(one, other):
    """Return whether two states hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# -- the model ----------------------------------------------------------------------------------


def test_trains_as_a_loop_by_hand_with_a_compiled_model(make_loop):
    """With the compiler, weights are those of a hand-written loop with torch.compile."""
    loop = make_loop(Compile(), model=Blocks(1))  # each block is compiled for seconds
    model = Blocks(1)
    compiled = torch.compile(model, dynamic=False)
    cross_entropy = torch.compile(torch.nn.functional.cross_entropy, dynamic=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for inputs, targets in loop.train_data:
        model.zero_grad()
        cross_entropy(compiled(inputs), targets).backward()
        optimizer.step()
        scheduler.step()
    loop.train(1)
    assert same(model.state_dict(), state_of(loop.model))


@pytest.mark.parametrize(
    ("dynamic", "backend"),
    [
        (False, "inductor"),
        (True, "aot_eager"),
        pytest.param(True, "inductor", marks=pytest.mark.soak),
    ],
)
def test_resumes_to_the_same_bits(make_loop, dynamic, backend):
    """With the compiler, a run with batches of several lengths resumes exactly."""

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 3:
                self.state = loop.state_dict()

    data = [
        (x[:n], y[:n]) for (x, y), n in zip(ComponentConformance.make_data(4), LENGTHS, strict=True)
    ]
    loop, other = (
        make_loop(Compile(dynamic=dynamic, backend=backend), Save(), data=data, model=Blocks(1))
        for _ in range(2)
    )
    loop.train(1)
    torch.compiler.reset()
    other.load_state_dict(loop.components["save"].state)
    other.train(1)
    assert same(state_of(loop.model), state_of(other.model))


@pytest.mark.parametrize(
    "run",
    [
        lambda loop: loop.train(n_optim_steps=2),
        lambda loop: loop.validate(VALID),
        lambda loop: loop.test(VALID),
        lambda loop: loop.predict(VALID),
    ],
    ids=["train", "validate", "test", "predict"],
)
def test_every_phase_is_compiled(make_loop, backend, run):
    """Forward passes in training, validation, testing and prediction are compiled ones."""
    run(make_loop(Compile(backend=backend, loss=False)))
    assert (1, 2) == (backend.n_graphs, backend.n_calls)


def test_a_model_that_is_called_in_on_loss_compute_is_compiled(make_loop, backend):
    """A step that computes scores with the loss is compiled, too."""

    class Short(Step):
        def on_forward_pass(self, loop):
            pass

        def on_loss_compute(self, loop):
            super().on_forward_pass(loop)
            super().on_loss_compute(loop)

    make_loop(Compile(backend=backend, loss=False), step=Short()).train(1)
    assert (1, 4) == (backend.n_graphs, backend.n_calls)


def test_a_second_run_and_an_equal_model_compile_nothing(make_loop, backend):
    """Another train(), and the model of another fold, use what was compiled."""
    loop, fold = (make_loop(Compile(backend=backend, loss=False)) for _ in range(2))
    loop.train(1)
    loop.train(1)
    fold.train(1)
    assert (1, 12) == (backend.n_graphs, backend.n_calls)


def test_other_shapes_compile_again(make_loop, backend):
    """A shorter last batch and other shapes in validation are no failure."""
    data = ComponentConformance.make_data(3)
    data[2] = tuple(part[:5] for part in data[2])
    valid_data = [tuple(part[:4] for part in batch) for batch in VALID]
    loop = make_loop(Compile(backend=backend, loss=False), data=data, valid_data=valid_data)
    loop.train(2)
    assert (3, 10) == (backend.n_graphs, backend.n_calls)


def test_a_validation_inside_a_forward_pass_leaves_the_model_compiled(make_loop, backend):
    """validate() in a forward pass is compiled, and so is what follows it."""

    class Validate(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.is_training:
                loop.validate(VALID)

    loop = make_loop(Compile(backend=backend, loss=False))
    loop.components.insert(0, Validate())
    loop.train(1)
    assert (2, 4 * 3) == (backend.n_graphs, backend.n_calls)


# -- in place -----------------------------------------------------------------------------------


def test_the_model_is_the_same_object_with_the_same_names(make_loop):
    """Names in the state of the model, in its copies and in its pickles are what they were."""
    loop = make_loop(Compile(backend="eager"))
    model, expected = loop.model, list(loop.model.state_dict())
    loop.train(1)
    assert model is loop.model
    copies = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert [expected] * 3 == [list(each.state_dict()) for each in copies]


@pytest.mark.parametrize("point", ["on_batch_begin", "on_forward_pass", "on_batch_end"])
def test_a_copy_of_the_model_is_not_compiled(make_loop, backend, recorder, point):
    """A copy that is made at any moment runs as it is."""
    copies = recorder(point, lambda loop: copy.deepcopy(loop.model))
    make_loop(Compile(backend=backend), copies).train(1)
    n_calls = backend.n_calls
    for each in copies.seen:
        each(VALID[0][0])
    assert n_calls == backend.n_calls


def test_disabled_in_mid_run_nothing_is_compiled(make_loop, backend):
    """The batches after it are uncompiled ones."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 2:
                loop.components.disable("compile")

    make_loop(Compile(backend=backend, optimizer=True, loss=False), Disable()).train(1)
    n_calls = backend.n_calls
    make_loop(Compile(backend=backend, optimizer=True, loss=False)).train(n_optim_steps=2)
    assert 2 * n_calls == backend.n_calls


@pytest.mark.parametrize("point", ["on_forward_pass", "on_loss_compute", "on_optim_step"])
def test_after_an_exception_everything_is_what_it_was(make_loop, backend, point):
    """An exception leaves neither model, nor loss function, nor steps compiled."""

    class Fail(LoopComponent):
        def __init__(self):
            def fail(loop):
                raise OSError("disk")

            setattr(self, point, fail)

    loop = make_loop(Compile(backend=backend, optimizer=True), Fail())
    with pytest.raises(OSError, match="disk"):
        loop.train(1)
    n_calls = backend.n_calls
    loop.loss_func(loop.model(VALID[0][0]), VALID[0][1]).backward()
    loop.optimizer.step()
    assert n_calls == backend.n_calls
    assert torch.nn.functional.cross_entropy is loop.loss_func


def test_a_model_that_is_compiled_already_is_left_alone(make_loop, backend):
    """What the script has compiled stays compiled, in its own way."""
    loop = make_loop(Compile(backend="inductor", loss=False), model=Blocks())
    loop.model.compile(backend=backend)
    loop.train(1)
    loop.model(VALID[0][0])
    assert 5 == backend.n_calls


def test_a_new_model_is_compiled(make_loop, backend):
    """A model that takes the place of another one between runs is compiled."""
    loop = make_loop(Compile(backend=backend, loss=False))
    loop.train(1)
    loop.model = Blocks()
    loop.train(1)
    assert (2, 8) == (backend.n_graphs, backend.n_calls)


def test_a_model_that_is_exchanged_in_a_forward_pass_is_left_as_it_was(make_loop, backend):
    """A validation of another model inside a forward pass compiles that one, and both are left."""

    class Exchange(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.is_training:
                own, loop.model = loop.model, Blocks()
                loop.validate(VALID)
                own, loop.model = loop.model, own
                models.append(own)

    models = []
    loop = make_loop(Compile(backend=backend, loss=False), Exchange())
    loop.train(1)
    n_calls = backend.n_calls
    for model in [loop.model, *models]:
        model(VALID[0][0])
    assert n_calls == backend.n_calls


# -- regions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("regions", ["blocks.*", "Block", Block, ["blocks.?", Block]], ids=repr)
def test_equal_regions_are_compiled_once(make_loop, backend, regions):
    """Blocks are chosen by name, class name or class, and are compiled once."""
    loop = make_loop(Compile(regions, backend=backend, loss=False), model=Blocks())
    loop.train(1)
    # the first block has inputs without gradients
    assert (2, 3 * 4) == (backend.n_graphs, backend.n_calls)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ("block", r"region 'block', which matches neither .* nearest are: .*blocks"),
        (torch.nn.Conv2d, "region 'Conv2d', which matches neither"),
    ],
)
def test_a_region_that_matches_nothing_is_an_error(make_loop, regions, message):
    """The error names the region, and the nearest names there are."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(Compile(regions, backend="eager"), model=Blocks()).train(1)


# -- loss and optimizer -------------------------------------------------------------------------


def test_the_loss_is_compiled(make_loop, backend):
    """`loop.loss_func` is compiled while the loss is computed, for training and evaluation."""
    make_loop(Compile(backend=backend, model=False), valid_data=VALID).train(1)
    assert (2, 6) == (backend.n_graphs, backend.n_calls)


def test_a_module_as_loss_keeps_its_state(make_loop):
    """A loss function with weights is the same object in states."""
    loss_func = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))

    class Weighted(Step):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.loss_func = loss_func

        def on_epoch_begin(self, loop):
            pass

    loop = make_loop(Compile(backend="eager"), step=Weighted())
    loop.train(1)
    assert loss_func is loop.loss_func


@pytest.mark.parametrize(
    ("make", "n_graphs"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 2),  # its first step has no state yet
        (lambda p: torch.optim.AdamW(p, lr=0.01), 1),
    ],
    ids=["SGD", "AdamW"],
)
def test_steps_are_compiled_once(make_loop, backend, make, n_graphs):
    """A learning rate that changes compiles nothing, and weights are those of a loop by hand."""

    class StepWith(Step):
        def on_train_begin(self, loop):
            loop.optimizer = make(loop.model.parameters())
            loop.scheduler = torch.optim.lr_scheduler.ExponentialLR(loop.optimizer, 0.9)

    data = ComponentConformance.make_data(8)
    compiled = Compile(model=False, loss=False, optimizer=True, backend=backend)
    loop = make_loop(compiled, step=StepWith(), data=data, model=Blocks())
    plain = make_loop(step=StepWith(), data=data, model=Blocks())
    loop.train(1)
    plain.train(1)
    assert n_graphs == backend.n_graphs
    torch.testing.assert_close(state_of(plain.model), state_of(loop.model))
    assert plain.scheduler.get_last_lr() == loop.scheduler.get_last_lr()


def test_steps_in_double_precision_have_learning_rates_in_it(make_loop):
    """The rate 0.1 is not rounded to single precision."""
    data = [(x.double(), y) for x, y in ComponentConformance.make_data(4)]
    loop, plain = (
        make_loop(*components, data=data, model=Blocks().double())
        for components in ([Compile(optimizer=True, backend="eager")], [])
    )
    loop.train(1)
    plain.train(1)
    torch.testing.assert_close(state_of(plain.model), state_of(loop.model), rtol=1e-12, atol=1e-12)


def test_hooks_of_the_optimizer_are_called(make_loop):
    """Hooks that other components have registered see each compiled step."""
    calls = []

    class Watch(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
            loop.optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    make_loop(Compile(optimizer=True, backend="eager"), Watch()).train(1)
    assert ["before", "after"] * 4 == calls


# -- with other components ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "others",
    [
        [use("amp", dtype="bf16"), use("ema", decay=0.5)],
        [use("grad-accumulation", every=2), use("grad-clip", max_norm=0.1)],
        [use("freeze", patterns={"0.*": 1}), use("lr-warmup", n_steps=4)],
        ["fast-optimizer"],
    ],
    ids=["amp, ema", "accumulation, clipping", "freeze, warm-up", "fast-optimizer"],
)
def test_with_other_components_a_run_has_the_bits_of_an_uncompiled_one(make_loop, others):
    """Where graphs run as they are, weights are those of the same list without it."""
    loop = make_loop(use("compile", backend="eager"), *others, valid_data=VALID)
    plain = make_loop(*others, valid_data=VALID)
    loop.train(2)
    plain.train(2)
    assert same(state_of(plain.model), state_of(loop.model))


def test_warm_up_acts_on_compiled_steps(make_loop):
    """Learning rates that another component scales for each step are those of compiled steps."""
    warm_up = use("lr-warmup", n_steps=4)
    loop = make_loop(Compile(optimizer=True, backend="eager"), warm_up)
    plain = make_loop(warm_up)
    loop.train(1)
    plain.train(1)
    torch.testing.assert_close(state_of(plain.model), state_of(loop.model))


# -- what is said -------------------------------------------------------------------------------


def test_says_that_it_compiles_and_how_long_it_took(make_loop, caplog):
    """There is a line before and after the first batch of training, and of evaluation."""
    loop = make_loop(Compile(backend="eager"), valid_data=VALID)
    with caplog.at_level(logging.WARNING, "ttl_compile"):
        loop.train(2)
    assert [
        "compile: compiling for training, so that the first batch takes longer",
        "compile: the first training batch took",
        "compile: compiling for evaluation, so that the first batch takes longer",
        "compile: the first evaluation batch took",
    ] == [message.split(" 0.")[0].split(" 1.")[0] for message in caplog.messages]


def test_where_it_is_disabled_there_is_one_warning_and_the_run_is_uncompiled(
    make_loop, backend, monkeypatch
):
    """As with TORCHDYNAMO_DISABLE=1, the run continues uncompiled."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    loop = make_loop(Compile(backend=backend, optimizer=True), valid_data=VALID)
    with pytest.warns(UserWarning, match="compiles nothing.*TORCHDYNAMO_DISABLE=1") as caught:
        loop.train(2)
    assert (1, 0, 8) == (len(caught), backend.n_calls, loop.global_step)


def test_without_a_compiler_there_is_one_warning_and_the_run_is_uncompiled(
    make_loop, backend, monkeypatch
):
    """Without a C++ compiler the warning says so, and what to install."""
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/such/compiler"))
    monkeypatch.setattr(config, "fx_graph_cache", False)
    loop = make_loop(Compile(), valid_data=VALID)
    with pytest.warns(UserWarning, match=r"No working C\+\+ compiler.*apt-get install") as caught:
        loop.train(2)
    assert (1, 8) == (len(caught), loop.global_step)


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"regions": 3}, "regions holds 3, but a region is the name of modules"),
        ({"regions": [int]}, "regions holds <class 'int'>, but a region is"),
        ({"regions": []}, "regions is empty"),
        ({"regions": "a", "model": False}, "regions='a' are parts of a model, but model is False"),
        ({"model": False, "loss": False}, "nothing to compile"),
        ({"mode": "fast"}, "mode is 'fast', but has to be None or 'default'"),
        ({"dynamic": "yes"}, "dynamic is 'yes', but has to be None or True or False"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument, its value, and what it has to be."""
    with pytest.raises(ArgumentError, match=message):
        Compile(**config)


def test_a_backend_that_torch_does_not_have_is_an_error(make_loop):
    """The error suggests the nearest one."""
    with pytest.raises(ArgumentError, match=r"backend='inducter'.*Did you mean 'inductor'"):
        make_loop(Compile(backend="inducter")).train(1)
