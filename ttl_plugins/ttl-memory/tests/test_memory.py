"""The behaviour of the components that change where and how long things are in memory."""

import copy
import gc
import threading

import pytest
import torch
from ttl_memory import (
    ActivationCheckpointing,
    ActivationOffload,
    ChannelsLast,
    GcControl,
    Prefetch,
)

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step, Stream


class Deep(torch.nn.Module):
    """A model of layers that draw random numbers and count their forward passes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Dropout(0.2))
            for _ in range(3)
        )
        self.head = torch.nn.Linear(4, 2)
        self.n_calls = 0
        for layer in self.layers:
            layer[0].register_forward_hook(self.count)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def count(self, *_):
        self.n_calls += 1

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def trained(*components, data=None, n_epochs=2):
    """Return a loop of the deep model after some epochs."""
    data = ComponentConformance.make_data(4) if data is None else data
    loop = TrainTestLoop(Deep(), [Step(), *components], data, data)
    torch.manual_seed(3)
    loop.train(n_epochs)
    return loop


def check(one, other):
    """Check that two models have the same weights, to the bit."""
    torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


OTHERS = {
    "alone": [],
    "with others": [
        use("grad-accumulation", every=2),
        use("grad-clip", max_norm=0.1),
        use("ema", decay=0.3),
    ],
    "two passes": [use("sam", rho=0.5)],
    "bf16": ["amp"],
}
ALL = {
    "activation-checkpointing": ActivationCheckpointing,
    "activation-offload": lambda: ActivationOffload(min_size=0),
    "channels-last": ChannelsLast,
    "gc-control": lambda: GcControl(2),
    "prefetch": Prefetch,
}


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("name", ALL)
def test_training_is_to_the_bit_what_it_is_without_it(name, others):
    """None of them changes what is computed, random numbers included."""
    check(trained(*OTHERS[others]), trained(ALL[name](), *OTHERS[others]))


# -- activation-checkpointing ----------------------------------------------------------------


def test_activations_are_computed_again_in_training_alone():
    """Each layer has two forward passes in a training batch, and one in validation."""
    plain, again = trained(n_epochs=1), trained(ActivationCheckpointing(), n_epochs=1)
    assert (24, 36) == (plain.model.n_calls, again.model.n_calls)
    chosen = again.components["activation-checkpointing"].chosen
    assert ["layers.0", "layers.1", "layers.2"] == chosen
    assert not any("forward" in vars(module) for module in again.model.modules())


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("others", OTHERS)
def test_batch_norms_gather_their_statistics_once(others, momentum):
    """The model is to the bit what it is without it, with what validation normalizes by."""

    def trained_with_norms(*components):
        generator = torch.Generator().manual_seed(2)
        data = [
            (
                torch.randn(6, 4, generator=generator),
                torch.randint(0, 2, (6,), generator=generator),
            )
            for _ in range(4)
        ]
        model = Deep()
        model.layers[0].append(torch.nn.BatchNorm1d(4, momentum=momentum))
        model.layers[1].insert(0, torch.nn.BatchNorm1d(4, momentum=momentum))
        model.layers[2] = torch.nn.BatchNorm1d(4, momentum=momentum)
        loop = TrainTestLoop(model, [Step(), *components, *OTHERS[others]], data, data)
        torch.manual_seed(3)
        loop.train(2)
        return loop

    check(trained_with_norms(), trained_with_norms(ActivationCheckpointing()))


def test_patterns_choose_modules():
    """Of modules inside each other the outer one is chosen."""
    loop = trained(ActivationCheckpointing(["layers.1", "layers.1.*"]), n_epochs=1)
    assert ["layers.1"] == loop.components["activation-checkpointing"].chosen


def test_a_pattern_that_matches_nothing_is_an_error():
    """It names the nearest modules."""
    with pytest.raises(ArgumentError, match=r"'blocks.*', which matches no module.*nearest"):
        trained(ActivationCheckpointing("blocks.*"))


# -- activation-offload ----------------------------------------------------------------------


def test_what_autograd_saves_is_packed_and_logged():
    """Tensors of the given size are counted, and parameters are not among them."""
    loop = trained(ActivationOffload(min_size=0), n_epochs=1)
    assert 0 < loop.metrics["train/offloaded-mib"] < 0.01
    loop = trained(ActivationOffload(min_size=10**6), n_epochs=1)
    assert 0 == loop.metrics["train/offloaded-mib"]


# -- channels-last ---------------------------------------------------------------------------


def test_images_and_weights_have_their_channels_last_during_a_run(recorder):
    """Afterwards the model is contiguous again, with the same values as without it."""

    def is_last(loop):
        tensors = [loop.model[0].weight, loop.batch[0]]
        return [t.is_contiguous(memory_format=torch.channels_last) for t in tensors]

    def train(*components):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2)
        )
        data = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])) for _ in range(3)]
        loop = TrainTestLoop(model, [Step(), *components], data)
        loop.train(1)
        return loop

    seen = recorder("on_forward_pass", is_last)
    plain, loop = train(), train(ChannelsLast(), seen)
    assert [[True, True]] * 3 == seen.seen
    assert 1 == loop.components["channels-last"].n_changed
    assert loop.model[0].weight.is_contiguous()
    torch.testing.assert_close(plain.model.state_dict(), loop.model.state_dict())


# -- gc-control ------------------------------------------------------------------------------


def test_garbage_is_collected_at_fixed_batches(monkeypatch):
    """The collector is disabled in a run, called by batches and at ends of epochs, and restored."""
    called = []
    monkeypatch.setattr(
        gc, "collect", lambda generation: called.append((generation, gc.isenabled()))
    )
    loop = trained(GcControl(every=3, generation=2), n_epochs=1)
    # eight batches of training and validation, and two epochs
    assert [(2, False)] * 4 == called
    assert gc.isenabled()
    assert 0 <= loop.metrics["train/gc-seconds"] < 1


# -- prefetch --------------------------------------------------------------------------------


class Slow:
    """Batches that note when they are asked for."""

    def __init__(self, batches):
        self.batches, self.asked = batches, []

    def __iter__(self):
        for i, batch in enumerate(self.batches):
            self.asked.append((i, threading.current_thread().name))
            yield batch


def test_batches_are_fetched_in_a_thread_ahead():
    """At the first batch, later ones have been asked for; the order is that of the data."""
    data, fetched, order = Slow(ComponentConformance.make_data(6)), [], []
    enough = threading.Event()

    class Wait(LoopComponent):
        def on_batch_begin(self, loop):
            order.append(next(i for i, b in enumerate(data.batches) if b[0] is loop.batch[0]))
            while not enough.is_set() and len(data.asked) < 4:
                enough.wait(0.01)
            enough.set()
            fetched.append(len(data.asked))

    loop = TrainTestLoop(Deep(), [Step(), Prefetch(2), Wait()], data)
    loop.train(1)
    assert (list(range(6)), True) == (order, fetched[0] >= 4)
    assert threading.main_thread().name not in {name for _, name in data.asked}


@pytest.mark.parametrize("every", [1, 2])
def test_no_batch_behind_the_last_step_is_fetched(every):
    """The next train() over the same iterator continues with it."""
    rest = iter(range(20))
    data = (batch for batch, _ in zip(ComponentConformance.make_data(20), rest, strict=False))
    accumulation = use("grad-accumulation", every=every)
    loop = TrainTestLoop(Deep(), [Step(), accumulation, Prefetch(4)], data)
    for _ in range(2):
        loop.train(n_optim_steps=3)
    assert 6 * every == next(rest)


@pytest.mark.parametrize("n", [1, 5])
def test_a_state_holds_the_position_of_the_data(n):
    """A run resumes behind the batch that was trained last, not behind those fetched ahead."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.state_dict())

    data = ComponentConformance.make_data(6)
    whole = TrainTestLoop(Deep().eval(), [Step(), Prefetch(3), Save()], data)
    torch.manual_seed(0)
    whole.train(1)
    resumed = TrainTestLoop(Deep(), [Step(), Prefetch(3)], data)
    resumed.load_state_dict(states[n - 1])
    resumed.train(1)
    check(whole, resumed)


class Shards:
    """Batches that keep their position as a state, as torchdata's StatefulDataLoader does."""

    def __init__(self):
        self.state = {"n": 0}

    def __iter__(self):
        batches = ComponentConformance.make_data(6)
        while self.state["n"] < 6:
            self.state["n"] += 1
            yield batches[self.state["n"] - 1]
        self.state["n"] = 0

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = dict(state)


INNER = {
    "alone": [],
    "limited": [use("limit-batches", train=5)],
    "around another one": [use("prefetch", n=2)],
    "around another one and a limit": [use("prefetch", n=2), use("limit-batches", train=5)],
}


@pytest.mark.parametrize("others", INNER.values(), ids=INNER)
def test_data_with_a_state_resume_behind_the_batch_that_was_trained_last(others):
    """At every safe point, also the last one of an epoch, where the thread has reached the end."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(copy.deepcopy(loop.state_dict()))

    def train(state, *components):
        loop = TrainTestLoop(Deep(), [Step(), *others, Prefetch(3), *components], Shards())
        loop.model.eval()
        if state is not None:
            loop.load_state_dict(state)
        loop.train(2)
        return loop

    whole = train(None, Save())
    assert len(states) > 6
    for state in states:
        resumed = train(state)
        assert whole.global_step == resumed.global_step
        check(whole, resumed)


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_error_of_the_data_is_raised_where_the_batch_is_taken(is_stream):
    """The batches before it are trained, and no thread is left."""

    def batches():
        yield from ComponentConformance.make_data(2)
        raise OSError("no such file")

    class Data:
        def __iter__(self):
            return batches()

    loop = TrainTestLoop(Deep(), [Step(), Prefetch(4)], Stream(Data()) if is_stream else Data())
    before = threading.active_count()
    with pytest.raises(OSError, match="no such file"):
        loop.train(1)
    assert 2 == loop.global_step
    assert before == threading.active_count()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActivationCheckpointing(3), "modules is 3"),
        (lambda: ActivationOffload(min_size=-1), "min_size is -1"),
        (lambda: GcControl(0), "every is 0"),
        (lambda: GcControl(generation=3), "generation is 3"),
        (lambda: Prefetch(0), "n is 0"),
    ],
)
def test_refuses_unusable_arguments(make, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        make()
