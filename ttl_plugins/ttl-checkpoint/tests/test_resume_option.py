"""From where a script resumes when it is started again."""

import copy
import os
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_runs import (
    FIRST,
    N_BATCHES,
    CallAt,
    CountBatches,
    InterruptAfter,
    interrupt,
    make_loop,
    names_in,
    newest,
    positions,
    weights,
)
from naive_savers import NaiveStateSaver
from torch.utils.data import DataLoader, TensorDataset
from ttl_checkpoint import Checkpoint, CheckpointError
from ttl_checkpoint.errors import CorruptError
from ttl_checkpoint.store import Store

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    SeededSampler,
    StateError,
    TrainTestLoop,
)
from ttl_core.testing import ComponentConformance, Step


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("n", range(1, 9))
def test_the_same_script_resumes(tmp_path, n, asynchronous):
    """Started again, it makes the steps that are left, and ends in the same bits."""
    config = {"every": 1, "asynchronous": asynchronous}
    full = make_loop(tmp_path / "full", **config)
    full.train(3)
    interrupt(tmp_path / "interrupted", n, **config)
    loop = make_loop(tmp_path / "interrupted", count := CountBatches(), **config)
    loop.train(3)
    assert (9 - n, 3, 9) == (count.n, loop.epoch_num, loop.global_step)
    assert weights(full) == weights(loop)


def test_what_most_scripts_save_does_not_resume_to_the_same_bits():
    """The test above fails with states that hold no position, whether they are copied or not."""
    full = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), naive := NaiveStateSaver()],
        ComponentConformance.make_data(N_BATCHES),
    )
    copies = []
    full.components.append(
        CallAt("on_safe_point", lambda loop: copies.append(copy.deepcopy(naive.states[-1])))
    )
    full.train(3)
    assert all(
        torch.equal(state["model"]["0.weight"], full.model[0].weight) for state in naive.states
    )
    for state in (naive.states[3], copies[3]):  # after the first batch of the second epoch
        rest = TrainTestLoop(
            ComponentConformance.make_model(),
            [Step(), NaiveStateSaver(resume_from=state)],
            ComponentConformance.make_data(N_BATCHES),
        )
        rest.train(3 - copies[3]["epoch_num"])
        assert weights(full) != weights(rest)


def test_logs_from_where_it_resumes(tmp_path, caplog):
    """A message has the path; a run that starts without a checkpoint logs nothing."""
    make_loop(tmp_path).train(1)
    assert [] == caplog.messages
    path = newest(tmp_path)
    make_loop(tmp_path).train(2)
    assert [f"checkpoint: resuming from {path}"] == caplog.messages


def test_a_run_that_had_ended_loads_and_returns(tmp_path):
    """Started again, a finished script trains nothing, saves nothing, and has the model."""
    full = make_loop(tmp_path)
    full.train(2)
    before = names_in(tmp_path)
    loop = make_loop(tmp_path, count := CountBatches())
    loop.train(2)
    assert (0, weights(full), before) == (count.n, weights(loop), names_in(tmp_path))


def test_a_run_that_had_been_stopped_loads_and_returns(tmp_path):
    """A stop is remembered, whatever number of epochs the script requests."""
    stop = CallAt("on_safe_point", lambda loop: loop.global_step == 4 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    before = names_in(tmp_path)
    loop = make_loop(tmp_path, count := CountBatches())
    loop.train(9)
    assert (0, 4, before) == (count.n, loop.global_step, names_in(tmp_path))


def test_a_script_with_more_epochs_resumes(tmp_path):
    """n_epochs counts from the beginning: two are left of four."""
    make_loop(tmp_path).train(2)
    make_loop(tmp_path, count := CountBatches()).train(4)
    assert 2 * N_BATCHES == count.n


def test_a_script_of_several_calls_resumes(tmp_path):
    """Calls of train() before the one that was interrupted return at once."""

    def script(*others):
        loop = make_loop(tmp_path, *others, every=1)
        loop.train(1)
        loop.train(2)
        return loop

    with pytest.raises(KeyboardInterrupt):
        script(InterruptAfter(5))
    loop = script(count := CountBatches())
    assert (4, 9, 3) == (count.n, loop.global_step, loop.epoch_num)


def test_a_test_before_training_sees_the_model(tmp_path):
    """A script that tests first tests the model that it resumes with."""
    full = make_loop(tmp_path)
    full.train(1)
    seen = []
    loop = make_loop(tmp_path, CallAt("on_test_end", lambda loop: seen.append(weights(loop))))
    loop.test(ComponentConformance.make_data(1))
    assert [weights(full)] == seen


def test_never_starts_again_and_leaves_the_others_alone(tmp_path):
    """With resume="never" nothing is loaded, numbers continue, and only its own are removed."""
    make_loop(tmp_path, keep=None).train(3)
    first = names_in(tmp_path)
    make_loop(tmp_path, count := CountBatches(), resume="never", keep=2).train(4)
    assert 4 * N_BATCHES == count.n
    own = ["000006-epoch-3-step-9", "000007-epoch-4-step-12"]
    assert [*first, *own] == names_in(tmp_path)


def test_removes_what_it_saved_before_it_resumed(tmp_path):
    """A resumed run is the same run, so its earlier checkpoints count in `keep`."""
    for n_epochs in (2, 3, 4, 5):
        make_loop(tmp_path, keep=2).train(n_epochs)
    assert [4, 5] == [epoch for epoch, _ in positions(tmp_path)]


@pytest.mark.parametrize("kind", [str, Path])
def test_resumes_from_the_one_that_is_named(tmp_path, kind):
    """A path, also in another directory, is resumed from, whatever other checkpoints there are."""
    make_loop(tmp_path / "a", keep=None).train(3)
    first = Store(tmp_path / "a").checkpoints()[-1]
    loop = make_loop(tmp_path / "b", count := CountBatches(), resume=kind(first))
    loop.train(3)
    assert (2 * N_BATCHES, 3) == (count.n, loop.epoch_num)
    assert ["000001-epoch-2-step-6", "000002-epoch-3-step-9"] == names_in(tmp_path / "b")
    assert 3 == len(names_in(tmp_path / "a"))


def test_an_earlier_one_of_the_same_directory_can_be_named(tmp_path):
    """Numbers continue, so that the newest is the one that was saved last."""
    make_loop(tmp_path, keep=None).train(3)
    first = Store(tmp_path).checkpoints()[-1]
    make_loop(tmp_path, resume=first, keep=None).train(2)
    assert [(1, 3), (2, 6), (3, 9), (2, 6)] == positions(tmp_path)
    assert "000004-epoch-2-step-6" == newest(tmp_path).name


@pytest.mark.parametrize("directory", ["a", "b"])
def test_a_named_one_is_started_from_once(tmp_path, directory):
    """C12: started again, the same script resumes from what it has saved since."""
    make_loop(tmp_path / "a", keep=None).train(3)
    first = Store(tmp_path / "a").checkpoints()[-1]
    config = {"resume": first, "keep": None, "every": 1}
    interrupt(tmp_path / directory, 5, **config)
    loop = make_loop(tmp_path / directory, count := CountBatches(), **config)
    loop.train(3)
    assert (4, 9) == (count.n, loop.global_step)
    shutil.rmtree(first)  # as `keep` may have done
    loop = make_loop(tmp_path / directory, count := CountBatches(), **config)
    loop.train(4)
    assert (3, 12) == (count.n, loop.global_step)


def test_another_path_is_started_from_again(tmp_path):
    """C12: what was saved since counts for the path that it was saved since, not for others."""
    make_loop(tmp_path, keep=None).train(3)
    _, newer, older = Store(tmp_path).checkpoints()
    make_loop(tmp_path, resume=older, keep=None).train(2)
    make_loop(tmp_path, count := CountBatches(), resume=newer, keep=None).train(3)
    assert N_BATCHES == count.n


def test_a_model_that_is_not_finite_is_told_when_resuming(tmp_path, caplog):
    """A16: the message has the newest checkpoint that is."""

    class Poison(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.epoch_num == 1:
                torch.nn.init.constant_(loop.model[0].bias, float("nan"))

    make_loop(tmp_path, Poison()).train(2)
    finite = Store(tmp_path).checkpoints()[1]
    make_loop(tmp_path).train(3)
    assert f"Its model is not finite; the newest one that is: resume='{finite}'" in caplog.text


def test_a_named_one_that_does_not_exist_is_an_error(tmp_path):
    """A path that is named has to be a checkpoint."""
    missing = tmp_path / "000001-epoch-1-step-3"
    with pytest.raises(CheckpointError, match=r"000001-epoch-1-step-3 .*No such file or directory"):
        make_loop(tmp_path, resume=missing).train(1)


def test_a_named_one_that_does_not_exist_is_not_called_corrupt(tmp_path):
    """A14: the error says that it does not exist, and what there is."""
    make_loop(tmp_path).train(1)
    with pytest.raises(CheckpointError) as caught:
        make_loop(tmp_path, resume=tmp_path / "000009-epoch-9-step-9").train(1)
    expected = (
        f"resume names {tmp_path / '000009-epoch-9-step-9'} but that does not exist: No such file "
        f"or directory. Did you mean {newest(tmp_path).name!r}? In {tmp_path} are: "
        f"{newest(tmp_path).name}"
    )
    assert expected == str(caught.value)
    assert not isinstance(caught.value, CorruptError)


def test_a_directory_of_checkpoints_is_not_one(tmp_path):
    """A14: a path of the directory is an error that shows the path of one in it."""
    make_loop(tmp_path).train(1)
    with pytest.raises(CheckpointError, match=f"Name one of them, as {newest(tmp_path)}"):
        make_loop(tmp_path, resume=str(tmp_path)).train(1)


def test_relative_paths_survive_a_change_of_directory(tmp_path, monkeypatch):
    """C6: checkpoints go where the directory was when the component was made, and are found."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    chdir = CallAt("on_epoch_end", lambda loop: os.chdir(tmp_path / "elsewhere"))
    make_loop("runs", chdir).train(2)
    assert [(1, 3), (2, 6)] == positions(tmp_path / "runs")
    assert [] == os.listdir(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    loop = make_loop("b", CallAt("on_epoch_end", print), resume=f"runs/{FIRST}")
    monkeypatch.chdir("elsewhere")
    loop.train(2)
    assert [(2, 6)] == positions(tmp_path / "b")


def test_the_lock_survives_a_change_of_directory(tmp_path, monkeypatch):
    """C6: a second run that names the same directory otherwise is refused."""
    monkeypatch.chdir(tmp_path)

    def start_another(loop):
        os.chdir("/")
        with pytest.raises(RunError, match="another run, or another component"):
            make_loop(tmp_path / "runs", resume="never").train(1)

    make_loop("runs", CallAt("on_batch_end", start_another)).train(1)


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    """C6: as a shell expands it; for an unknown user it is an error before work starts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_loop("~/runs").train(1)
    assert [(1, 3)] == positions(tmp_path / "runs")
    loop = make_loop("b", resume=f"~/runs/{FIRST}")
    loop.train(1)
    assert 1 == loop.epoch_num
    with pytest.raises(ArgumentError, match="directory is '~nobody-of-this-name/a': "):
        Checkpoint("~nobody-of-this-name/a")


@pytest.mark.parametrize("directory", ["", "a\0b", b"runs", 3], ids=repr)
def test_something_else_than_a_path_is_refused(directory):
    """C6: before anything is done with it."""
    with pytest.raises(ArgumentError, match="has to be a path, as 'runs/a'"):
        Checkpoint(directory)


def test_auto_is_a_path_if_it_is_one(tmp_path, monkeypatch):
    """Path("auto") is a directory of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="auto"):
        make_loop(tmp_path, resume=Path("auto")).train(1)


def test_a_missing_component_is_an_error_unless_it_is_ignored(tmp_path):
    """What the loop refuses can be ignored by name."""

    class Memory(LoopComponent):
        name = "memory"

        def state_dict(self):
            return {"x": 1}

        def load_state_dict(self, state):
            pass

    make_loop(tmp_path, Memory()).train(1)
    with pytest.raises(StateError, match=r"the state holds component 'memory'.*ignore=\['memory'"):
        make_loop(tmp_path).train(2)
    loop = make_loop(tmp_path, ignore=["memory"])
    loop.train(2)
    assert 2 == loop.epoch_num


# -- data -----------------------------------------------------------------------------------


def shuffled(**options):
    """Return a loader of four batches, in an order that nothing repeats unless it has a sampler."""
    inputs, targets = ComponentConformance.make_data(1)[0]
    dataset = TensorDataset(inputs.repeat(2, 1), targets.repeat(2))
    if "sampler" in options:
        return DataLoader(dataset, batch_size=3, sampler=options["sampler"](dataset))
    return DataLoader(dataset, batch_size=3, shuffle=True)


@pytest.mark.parametrize("every", [2, "2 steps", "10 minutes"])
def test_refuses_an_order_that_cannot_be_repeated_before_the_first_batch(tmp_path, every):
    """The error shows the line to change, and its note the alternative."""
    loop = make_loop(tmp_path, data=shuffled(), every=every)
    with pytest.raises(StateError) as caught:
        loop.train(1)
    assert "sampler=ttl_core.SeededSampler(dataset)" in str(caught.value)
    expected = "Or save at the ends of epochs only: use('checkpoint', ..., mid_epoch=False)"
    assert expected == caught.value.__notes__[0]
    assert 0 == loop.global_step
    assert [] == names_in(tmp_path)


@pytest.mark.parametrize("config", [{}, {"every": 2, "mid_epoch": False}], ids=str)
def test_an_order_that_cannot_be_repeated_is_accepted_between_epochs(tmp_path, config):
    """With every="epoch", or mid_epoch=False, a run resumes from the end of an epoch."""
    torch.manual_seed(0)
    full = make_loop(tmp_path / "full", data=shuffled(), **config)
    full.train(3)
    torch.manual_seed(0)
    interrupt(tmp_path / "interrupted", 6, data=shuffled(), **config)
    assert [(1, 4)] == positions(tmp_path / "interrupted")
    torch.manual_seed(1)
    loop = make_loop(tmp_path / "interrupted", data=shuffled(), **config)
    loop.train(3)
    assert weights(full) == weights(loop)


def test_a_seeded_order_resumes_in_the_middle_of_an_epoch(tmp_path):
    """With the line that the error shows, a run resumes from the middle of an epoch."""
    config = {"every": 1}
    full = make_loop(tmp_path / "full", data=shuffled(sampler=SeededSampler), **config)
    full.train(3)
    interrupt(tmp_path / "interrupted", 6, data=shuffled(sampler=SeededSampler), **config)
    loop = make_loop(tmp_path / "interrupted", data=shuffled(sampler=SeededSampler), **config)
    loop.train(3)
    assert weights(full) == weights(loop)
