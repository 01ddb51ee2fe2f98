"""What saving costs, and what the component costs between saves."""

import os
import random
import statistics
import time

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.bench

MANY = 10**9  # steps that never pass
N_BATCHES = 10_000


class Nothing(LoopComponent):
    """A component that implements each point of a batch, and does nothing."""

    def _nothing(self, loop):
        pass

    on_grads_reset = on_batch_begin = on_forward_pass = on_loss_compute = _nothing
    on_backward_pass = on_optim_step = on_batch_end = _nothing


class EpochClock(LoopComponent):
    """A clock of the batches of an epoch, without what is saved at its end."""

    @hookimpl(trylast=True)
    def on_epoch_begin(self, loop):
        self.start = time.process_time()

    @hookimpl(tryfirst=True)
    def on_epoch_end(self, loop):
        self.seconds = time.process_time() - self.start


def seconds_of_an_epoch(loop):
    """Train for an epoch and return how long its batches took."""
    loop.train(1)
    return loop.components["epoch-clock"].seconds


@pytest.mark.parametrize("every", [MANY, "1000 minutes"])
def test_an_empty_step_between_saves(assert_ratio, tmp_path, every):
    """Between saves, the loop costs little more than without the component."""
    saving = use("checkpoint", directory=tmp_path, every=every)
    without, loop = (
        TrainTestLoop(torch.nn.Identity(), [Nothing(), EpochClock(), *more], range(N_BATCHES))
        for more in ([], [saving])
    )
    assert_ratio(
        f"empty step between saves, every={every}",
        lambda: seconds_of_an_epoch(loop),
        "the loop without it",
        lambda: seconds_of_an_epoch(without),
        limit=1.6,  # 1.22 to 1.51 was measured
        per=N_BATCHES,
    )


class Weights(torch.nn.Module):
    """A model of 100 MB in tensors of 4 MB."""

    def __init__(self):
        super().__init__()
        self.all = torch.nn.ParameterList(torch.randn(1024, 1024) for _ in range(25))


class SafePointClock(LoopComponent):
    """A clock of the times at which safe points reach this position in the list.

    Args:
        clock: returns the time.
    """

    def __init__(self, clock=time.perf_counter):
        self.clock = clock

    def on_epoch_begin(self, loop):
        self.times = []

    def on_safe_point(self, loop):
        self.times.append(self.clock())


class SavePlainly(LoopComponent):
    """A saver with torch.save and fsync at each safe point, and a clock of how long that takes.

    Args:
        path: where to.
    """

    def __init__(self, path):
        self.path = path

    def on_epoch_begin(self, loop):
        self.seconds = []

    def on_safe_point(self, loop):
        start = time.perf_counter()
        with open(self.path, "wb") as file:
            torch.save(loop.model.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        self.seconds.append(time.perf_counter() - start)
        time.sleep(max(0.3, 3 * self.seconds[-1]))  # so that neither slows the other on any disk


@pytest.mark.parametrize(
    ("asynchronous", "limit"), [(False, 3.2), (True, 0.5)], ids=["synchronous", "asynchronous"]
)
def test_a_save_against_torch_save(assert_ratio, tmp_path, asynchronous, limit):
    """The loop waits for a save no longer than a multiple of torch.save and fsync takes."""
    plainly, before, after = SavePlainly(tmp_path / "plain.pt"), SafePointClock(), SafePointClock()
    saving = use("checkpoint", directory=tmp_path / "a", every=1, asynchronous=asynchronous)
    loop = TrainTestLoop(Weights(), [plainly, before, saving, after], range(9))

    def pairs():
        while True:
            loop.train(1)
            stood = [b - a for a, b in zip(before.times, after.times, strict=True)]
            yield from zip(stood, plainly.seconds, strict=True)

    measured, pair = pairs(), [0.0, 0.0]

    def stands_still():
        pair[:] = next(measured)
        return pair[0]

    assert_ratio(
        f"standing still for {'an a' * asynchronous or 'a '}synchronous save of 100 MB",
        stands_still,
        "torch.save and fsync",
        lambda: pair[1],
        limit=limit,
        repeats=15,
        unit="ms",
    )


class SaveByHand(LoopComponent):
    """A saver of all that a script needs to resume, with torch.save and fsync, and a clock of it.

    Args:
        path: where to.
    """

    def __init__(self, path):
        self.path = path

    def on_epoch_begin(self, loop):
        self.seconds = []

    def on_safe_point(self, loop):
        start = time.process_time()
        with open(self.path, "wb") as file:
            objects = {"model": loop.model, "optimizer": loop.optimizer}
            state = {name: one.state_dict() for name, one in objects.items()}
            state["scheduler"] = loop.scheduler.state_dict()
            state["random"] = random.getstate(), torch.get_rng_state()
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        self.seconds.append(time.process_time() - start)


@pytest.mark.usefixtures("one_thread")
def test_a_save_of_a_tiny_model_by_hand(assert_ratio, tmp_path):
    """Of a tiny model, a save takes a few times the processor time of torch.save and fsync."""
    by_hand = SaveByHand(tmp_path / "plain.pt")
    before, after = (SafePointClock(time.process_time) for _ in range(2))
    saving = use("checkpoint", directory=tmp_path / "a", every=1)
    data = ComponentConformance.make_data(20)
    model = ComponentConformance.make_model()
    loop = TrainTestLoop(model, [Step(), by_hand, before, saving, after], data)
    pair = [0.0, 0.0]

    def save():
        loop.train(1)
        taken = [b - a for a, b in zip(before.times, after.times, strict=True)]
        pair[:] = statistics.median(taken), statistics.median(by_hand.seconds)
        return pair[0]

    assert_ratio(
        "a save of a tiny model",
        save,
        "torch.save and fsync by hand",
        lambda: pair[1],
        limit=3.2,
        repeats=9,
        unit="ms",
    )
