"""A script that is started again resumes to the same bits, however its runs begin and end."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from resume_comparison import (
    NaiveState,
    Outcome,
    ResumableStream,
    RunLog,
    compare_resumed,
    outcome,
    rest_of,
    resume,
    run,
    to_bytes,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, hookimpl, use
from ttl_core.testing import Step, tiny_loop

INPUTS = torch.randn(18, 3, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(18) % 2


def batches():
    """Return a list of five batches."""
    return list(zip(INPUTS.split(4), TARGETS.split(4), strict=True))


def points(run_log):
    """Return the points that have fired, in order."""
    return [entry[0] for entry in run_log.log]


def make_model():
    """Return a model that draws random numbers."""
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2))


def make_loop(*others, train_data=None, has_valid_data=True, **log_options):
    """Return a loop; an epoch is five batches and three steps."""
    components = [
        RunLog(**log_options),
        use(
            "supervised",
            loss_func=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.Adam, lr=0.02),
        ),
        use("grad-accumulation", every=2),
        *others,
        use("metrics"),
    ]
    train_data = batches() if train_data is None else train_data()
    valid_data = batches()[:2] if has_valid_data else None
    return TrainTestLoop(make_model(), components, train_data, valid_data)


# -- scripts --------------------------------------------------------------------------------


def two_trains(loop):
    """Train twice."""
    loop.train(2)
    loop.train(1)


def three_trains(loop):
    """Train by epochs, by steps, and by epochs again."""
    loop.train(1)
    loop.train(n_optim_steps=4)
    loop.train(1)


def by_steps(loop):
    """Train for steps, whose last is in the middle of an epoch."""
    loop.train(n_optim_steps=7)


def by_steps_of_whole_epochs(loop):
    """Train for steps, whose last is at the end of an epoch."""
    loop.train(n_optim_steps=6)


def one_epoch(loop):
    """Train for one epoch."""
    loop.train(1)


def no_epoch(loop):
    """Train for no epoch, and then for one."""
    loop.train(0)
    loop.train(1)


@pytest.mark.parametrize(
    ("script", "config"),
    [
        (two_trains, {}),
        (two_trains, {"has_valid_data": False}),
        (three_trains, {}),
        (three_trains, {"has_valid_data": False}),
        (by_steps, {}),
        (by_steps, {"has_valid_data": False}),
        (by_steps_of_whole_epochs, {}),
        (by_steps_of_whole_epochs, {"has_valid_data": False}),
        (one_epoch, {"has_valid_data": False}),
        (no_epoch, {}),
    ],
)
def test_resumes_in_the_same_script(script, config):
    """Calls of train() before the one that resumes return at once, those after it follow."""
    for expected, actual in compare_resumed(partial(make_loop, **config), script):
        assert expected == actual


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric _MeanLoss was called before")
@pytest.mark.parametrize("has_valid_data", [True, False])
@pytest.mark.parametrize("script", [two_trains, by_steps])
def test_resumes_without_a_length(script, has_valid_data):
    """Where data have no length, gradients that are accumulated across epochs are resumed too."""
    make = partial(
        make_loop, train_data=partial(ResumableStream, batches()), has_valid_data=has_valid_data
    )
    for expected, actual in compare_resumed(make, script):
        assert expected == actual


@pytest.mark.parametrize("init_scale", [2.0**18, 2.0**22])
def test_resumes_where_gradients_were_dropped(init_scale):
    """After a step that half precision overflowed in, no gradients are pending, nor in a state."""
    amp = partial(use, "amp", dtype="fp16", init_scale=init_scale)
    for expected, actual in compare_resumed(lambda: make_loop(amp())):
        assert expected == actual


def test_a_later_train_begins_where_it_began():
    """on_train_begin of a second train() sees the counts at which it first began."""
    full = run(make_loop, two_trains)
    resumed = resume(make_loop, full.saved[-2].file, two_trains)
    begins = [entry for entry in resumed.log if entry[0] == "on_train_begin"]
    assert [("on_train_begin", "", 2, None, 0, 6)] == begins


def test_resumes_after_runs_of_other_kinds():
    """Validations and tests before the train() that resumes run again, and change nothing."""

    def script(loop):
        loop.train(1)
        loop.validate()
        loop.test(batches())
        loop.train(1)

    full = run(make_loop, script)
    for n, file in full.saved[-4:]:  # of the second train()
        resumed = resume(make_loop, file, script)
        begin = points(resumed).index("on_train_begin") - 1
        assert ["around_run", "around_epoch", "on_epoch_begin"] == points(resumed)[:3]
        assert rest_of(full, n) == Outcome(resumed.log[begin:], resumed.ends)


# -- runs that have ended -------------------------------------------------------------------


class Stop(LoopComponent):
    """A component that stops the run at the safe point where a function of the loop is true."""

    def __init__(self, when):
        self.when = when

    def on_safe_point(self, loop):
        if self.when(loop):
            loop.stop()


def stop_when(*position):
    """Return a component that stops at a safe point: the phase, the epoch and the step."""
    return Stop(lambda loop: position == (loop.epoch_desc, loop.epoch_num, loop.global_step))


ENDED = {
    "finished": (),
    "stopped inside an epoch": (partial(stop_when, "train", 1, 4),),
    "stopped after training": (partial(stop_when, "train", 1, 6),),
    "stopped after validation": (partial(stop_when, "valid", 2, 6),),
    "stopped at the very end": (partial(stop_when, "valid", 3, 9),),
    "stopped early": (partial(use, "early-stopping", patience=1, min_delta=9.0),),
    "out of time": (partial(use, "time-limit", seconds=1e-6),),
}


RETURNS = ["around_run", "on_train_begin", "on_train_end", "end of around_run"]


def without_position(ends):
    """Return the bits of ends without their position."""
    return [{k: v for k, v in end.items() if not k.startswith("/position")} for end in ends]


@pytest.mark.parametrize("components", ENDED.values(), ids=ENDED)
def test_a_run_that_has_ended_loads_and_returns(components):
    """A new loop has the same bits, and fires only the points at which a run begins and ends."""

    def make():
        loop = make_loop(*(make_one() for make_one in components))
        loop.components.append(loop.components.pop(0))  # after time-limit has stopped its clock
        return loop

    full = run(make)
    resumed = resume(make, to_bytes(full.finals[-1]))
    assert (RETURNS, without_position(full.ends)) == (
        points(resumed),
        without_position(resumed.ends),
    )
    assert full.log[-2:] == resumed.log[-2:]


def test_a_stopped_run_that_was_loaded_can_be_saved_again():
    """Its position is the one that was loaded."""
    make = partial(make_loop, stop_when("train", 1, 4))
    full = run(make)
    resumed = resume(make, to_bytes(full.finals[-1]))
    assert full.ends == resumed.ends


@pytest.mark.parametrize("components", ENDED.values(), ids=ENDED)
def test_a_script_whose_run_has_ended_does_not_train(components, tmp_path):
    """The component saves the end of a run, and the script started again returns at once."""

    def make():
        checkpoint = use("checkpoint", directory=tmp_path, every=2)
        loop = make_loop(checkpoint, *(make_one() for make_one in components), saver=None)
        loop.components.append(loop.components.pop(0))
        return loop

    full, resumed = run(make), run(make, seed=99)
    assert (RETURNS, without_position(full.ends)) == (
        points(resumed),
        without_position(resumed.ends),
    )


@pytest.mark.parametrize("script", [by_steps, two_trains], ids=["by steps", "twice"])
@pytest.mark.parametrize("has_valid_data", [True, False])
def test_other_finished_runs_load_and_return(script, has_valid_data):
    """So does a run whose last step was inside an epoch, and the last of several runs."""
    make = partial(make_loop, has_valid_data=has_valid_data)
    full = run(make, script)
    resumed = resume(make, to_bytes(full.finals[-1]), script)
    assert (RETURNS, full.ends[-1:]) == (points(resumed), resumed.ends)


def test_resumes_after_a_run_that_was_stopped():
    """Where the first of two train() was stopped, the second one ends in the same bits."""

    def make():
        return make_loop(stop_when("train", 1, 4))

    full = run(make, two_trains)
    resumed = resume(make, to_bytes(full.finals[0]), two_trains)
    second = full.log[full.log.index(("end of around_run",)) :]
    assert without_position(full.ends) == without_position(resumed.ends)
    assert (RETURNS[:-1], second) == (points(resumed)[:3], resumed.log[3:])


@pytest.mark.parametrize("ended", ["stopped inside an epoch", "stopped early"])
def test_resumes_to_where_a_run_was_stopped(ended):
    """From the safe points before, a run resumes to the same stop and the same bits."""

    def make():
        return make_loop(*(make_one() for make_one in ENDED[ended]))

    *pairs, _ = compare_resumed(make)
    for expected, actual in pairs:
        assert expected == actual


def test_early_stopping_does_not_train_beyond_its_stop():
    """From the safe point at which it was about to stop, a run ends with the same weights."""

    def make():
        return make_loop(use("early-stopping", patience=1, min_delta=9.0))

    full = run(make)
    resumed = resume(make, full.saved[-1].file)
    assert outcome(full).model == outcome(resumed).model
    assert [] == [entry for entry in resumed.log if entry[0] == "on_batch_begin"]


@pytest.mark.parametrize("has_valid_data", [True, False])
@pytest.mark.parametrize("at_end", [True, False])
def test_a_finished_run_can_be_made_longer(has_valid_data, at_end):
    """With more epochs, it equals a run that had as many from the beginning."""
    make = partial(make_loop, has_valid_data=has_valid_data)
    longer = run(make)
    shorter = run(make, lambda loop: loop.train(2))
    file = to_bytes(shorter.finals[-1]) if at_end else shorter.saved[-1].file
    assert rest_of(longer, shorter.saved[-1].n) == outcome(resume(make, file))


@pytest.mark.parametrize("has_valid_data", [True, False])
def test_a_script_can_be_made_longer(has_valid_data, tmp_path):
    """The same holds for a script with the component, started again with more epochs."""

    def make(folder):
        checkpoint = use("checkpoint", directory=tmp_path / folder)
        return make_loop(checkpoint, has_valid_data=has_valid_data, saver=None)

    longer = run(partial(make, "longer"))
    shorter = run(partial(make, "shorter"), lambda loop: loop.train(2))
    resumed = run(partial(make, "shorter"), seed=99)
    assert rest_of(longer, shorter.saved[-1].n) == outcome(resumed)


class LogSteps(LoopComponent):
    """A value that is logged at each safe point."""

    def on_safe_point(self, loop):
        loop.log({"step": loop.global_step})


class LogStepsFirst(LogSteps):
    @hookimpl(tryfirst=True)
    def on_safe_point(self, loop):
        super().on_safe_point(loop)


class Logged(LoopComponent):
    """What was logged, as loggers restore it: what was logged since the state is dropped."""

    def __init__(self):
        self.values = []

    def on_log(self, metrics):
        self.values += metrics.values()

    def state_dict(self):
        return {"values": [*self.values]}

    def load_state_dict(self, state):
        self.values = [*state["values"]]


class Fail(LoopComponent):
    def on_batch_begin(self, loop):
        if loop.global_step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("components", "lost"),
    [
        (["saver", LogStepsFirst], []),
        ([LogSteps, "saver"], []),
        (["saver", LogSteps], [2]),  # as the documentation says
    ],
    ids=["tryfirst", "before the saver", "behind the saver"],
)
def test_what_is_logged_at_a_safe_point_is_in_the_state_if_the_saver_is_called_later(
    components, lost, tmp_path
):
    """So a run that resumes loses nothing of it, and has nothing twice."""

    def make_loop(directory, *others):
        saver = use("checkpoint", directory=tmp_path / directory, every=2, signals=False)
        others = [*others, *(saver if each == "saver" else each() for each in components)]
        return tiny_loop(Step(), Logged(), *others, n_batches=8)

    whole = make_loop("whole")
    whole.train(n_epochs=1)
    with pytest.raises(KeyboardInterrupt):
        make_loop("killed", Fail()).train(n_epochs=1)
    resumed = make_loop("killed")
    resumed.train(n_epochs=1)
    values = whole.components["logged"].values
    assert [each for each in values if each not in lost] == resumed.components["logged"].values


@pytest.mark.parametrize("script", [two_trains, by_steps])
def test_resuming_by_model_optimizer_and_epoch_alone_is_another_run(script):
    """What most scripts save leads to other weights, unless it was saved at the end."""

    def make():
        return make_loop(saver=NaiveState)

    *pairs, _ = compare_resumed(make, script, saver=NaiveState)
    for expected, actual in pairs:
        assert expected.model != actual.model


# -- programs without support for checkpoints -----------------------------------------------


class MainLoop(LoopComponent):
    """A user's own component, as in the seed's document."""

    def on_train_begin(self, loop):
        loop.loss_func = nn.CrossEntropyLoss()
        loop.optimizer = torch.optim.Adam(loop.model.parameters(), lr=0.02)
        loop.scheduler = torch.optim.lr_scheduler.LinearLR(
            loop.optimizer, 1.0, 0.1, total_iters=loop.n_optim_steps
        )

    def on_grads_reset(self, loop):
        loop.model.zero_grad()

    def on_forward_pass(self, loop):
        model, batch = (loop.model, loop.batch)
        loop.scores = model(batch.data)

    def on_loss_compute(self, loop):
        scores, labels = (loop.scores, loop.batch.labels)
        loop.loss = loop.loss_func(scores, labels)

    def on_backward_pass(self, loop):
        loop.loss.backward()

    def on_optim_step(self, loop):
        loop.optimizer.step()
        loop.scheduler.step()


def list_of_objects():
    """Return batches as in the seed's document."""
    return [SimpleNamespace(data=data, labels=labels) for data, labels in batches()]


def collate(samples):
    """Make such a batch from samples."""
    data, labels = zip(*samples, strict=True)
    return SimpleNamespace(data=torch.stack(data), labels=torch.stack(labels))


def loader_of_objects():
    """Return a loader of such batches, in another order each epoch."""
    dataset = TensorDataset(INPUTS, TARGETS)
    return DataLoader(dataset, 4, sampler=SeededSampler(dataset), collate_fn=collate)


SEED_DATA = pytest.mark.parametrize("make_data", [list_of_objects, loader_of_objects])


def make_seed_loop(make_data, *others, **log_options):
    """Return the loop in the seed's document."""
    components = [RunLog(**log_options), MainLoop(), *others]
    return TrainTestLoop(make_model(), components, make_data(), list_of_objects())


@SEED_DATA
def test_a_program_without_support_for_checkpoints_resumes(make_data):
    """What it sets in on_train_begin is found, and restored at every safe point."""
    for expected, actual in compare_resumed(partial(make_seed_loop, make_data)):
        assert expected == actual


@SEED_DATA
def test_such_a_program_resumes_by_one_more_name(make_data, tmp_path):
    """With the component in its list, it resumes from each checkpoint when started again."""

    def make(folder, **config):
        checkpoint = use("checkpoint", directory=tmp_path / folder, every=1, keep=None, **config)
        return make_seed_loop(make_data, checkpoint, saver=None)

    full = run(partial(make, "full"))
    for n, path in full.saved[::3]:
        resumed = run(partial(make, "resumed", resume=path), seed=99)
        assert rest_of(full, n) == outcome(resumed)


@SEED_DATA
def test_such_a_program_resumes_to_other_bits_by_what_most_scripts_save(make_data):
    """Its model, optimizer, scheduler and epoch lead to other weights, except at the end."""
    make = partial(make_seed_loop, make_data, saver=NaiveState)
    *pairs, _ = compare_resumed(make, saver=NaiveState)
    for expected, actual in pairs:
        assert expected.model != actual.model
