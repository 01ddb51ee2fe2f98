"""loop.run_desc: what runs, from around_run to the end."""

from __future__ import annotations

import pytest
from loops import make_component, make_loop
from recording import Recorder

from ttl_core import hookimpl

RUNS = {
    "train": lambda loop: loop.train(1),
    "valid": lambda loop: loop.validate(),
    "test": lambda loop: loop.test([0]),
    "predict": lambda loop: loop.predict([0], collect=False),
}


@pytest.mark.parametrize(("desc", "run"), RUNS.items(), ids=RUNS.keys())
def test_around_run_knows_what_runs(desc, run):
    """It is set before the first hook of a run, and unset when the run has ended."""
    seen = []

    @hookimpl(wrapper=True)
    def around_run(loop):
        seen.append(loop.run_desc)
        yield
        seen.append(loop.run_desc)

    loop = make_loop(make_component(around_run=around_run))
    assert loop.run_desc is None
    run(loop)
    assert [desc, desc] == seen
    assert loop.run_desc is None


def test_a_validation_inside_of_training_is_a_part_of_it():
    """validate() in a hook of train() is no run of its own."""
    recorder = Recorder("on_epoch_begin", "run_desc", "epoch_desc")
    validate = make_component(on_batch_end=lambda loop: loop.is_training and loop.validate())
    make_loop(recorder, validate, train_data=[0], valid_data=[0]).train(1)
    assert [("train", "train"), ("train", "valid"), ("train", "valid")] == recorder.seen


def test_it_is_set_when_a_run_fails():
    """on_exception still knows what has failed, and nothing runs afterwards."""
    seen = []
    loop = make_loop(
        make_component(
            on_batch_end=lambda loop: 1 // 0,
            on_exception=lambda loop: seen.append(loop.run_desc),
        )
    )
    with pytest.raises(ZeroDivisionError):
        loop.test([0])
    assert ["test", None] == [*seen, loop.run_desc]
