"""predict(): the scores of data, batch by batch."""

from collections import OrderedDict

import pytest
import torch

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    TrainTestLoop,
    UnsetVariableError,
    hookimpl,
)
from ttl_core.hookspecs import POINTS


class Forward(LoopComponent):
    """A component that sets scores and remembers where it was called."""

    def __init__(self):
        self.log = []

    def on_forward_pass(self, loop):
        loop.scores = loop.model(loop.batch)
        self.log.append((loop.epoch_desc, loop.is_predicting, torch.is_grad_enabled()))


def make_loop(*components, **data):
    """Return a loop of a linear model and components."""
    return TrainTestLoop(torch.nn.Linear(2, 1), components, **data)


def test_predict_returns_the_scores_of_each_batch_by_hand():
    """The scores are those of a plain loop over the data in evaluation mode."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout())
    data = [torch.randn(4, 2), torch.randn(1, 2)]
    scores = TrainTestLoop(model, [Forward()]).predict(data)
    model.eval()
    with torch.no_grad():
        by_hand = [model(batch) for batch in data]
    assert [one.tolist() for one in by_hand] == [one.tolist() for one in scores]


def test_prediction_fires_these_points():
    """Prediction is one epoch of three points, between a begin and an end point."""
    log = []

    def recording(point):
        return lambda self, loop: log.append(point)

    points = [p for p in POINTS if p.startswith("on_") and p not in ("on_log", "on_exception")]
    recorder = type("Recorder", (LoopComponent,), {point: recording(point) for point in points})
    make_loop(Forward(), recorder()).predict([torch.ones(1, 2)] * 2)
    batch = ["on_batch_begin", "on_forward_pass", "on_batch_end"]
    assert ["on_predict_begin", *batch, *batch, "on_predict_end"] == log


def test_the_phase_is_predict_and_has_no_gradients():
    """Flags and epoch_desc tell the phase; afterwards no flag is set."""
    forward = Forward()
    loop = make_loop(forward)
    loop.predict([torch.ones(1, 2)])
    assert [("predict", True, False)] == forward.log
    assert not loop.is_predicting


def test_without_collecting_nothing_is_returned():
    """collect=False leaves the scores to components."""
    assert make_loop(Forward()).predict([torch.ones(1, 2)], collect=False) is None


def test_scores_of_any_structure_come_to_the_cpu_without_graphs():
    """Mappings, tuples and lists keep their form, and tensors lose their graphs."""

    class Nested(LoopComponent):
        def on_forward_pass(self, loop):
            with torch.enable_grad():
                scores = loop.model(loop.batch)
            loop.scores = {"logits": scores, "more": [(scores, "text")]}

    (scores,) = make_loop(Nested()).predict([torch.ones(1, 2)])
    assert not scores["logits"].requires_grad
    assert "text" == scores["more"][0][1]
    assert not scores["more"][0][0].requires_grad


def test_collected_mappings_keep_their_type():
    """A12: an output that is a mapping of its own type stays one, with its attributes."""

    class Output(OrderedDict):
        pass

    class Forward(LoopComponent):
        def on_forward_pass(self, loop):
            loop.scores = Output(logits=loop.model(loop.batch))
            loop.scores.n_layers = 3

    (scores,) = make_loop(Forward()).predict([torch.ones(1, 2)])
    assert (Output, 3) == (type(scores), scores.n_layers)
    assert scores["logits"].grad_fn is None


def test_scores_that_no_component_sets_are_an_error():
    """The scores of an earlier batch or run are not taken for those of this one."""
    forward = Forward()
    loop = make_loop(forward)
    loop.predict([torch.ones(1, 2)])
    loop.components.disable(forward)
    with pytest.raises(UnsetVariableError, match="scores"):
        loop.predict([torch.ones(1, 2)])


def test_stop_ends_a_prediction_with_what_was_collected():
    """stop() skips the rest, the end point fires, and the first scores are returned."""
    ends = []

    class Stop(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num == 1:
                loop.stop()

        def on_predict_end(self, loop):
            ends.append(loop.is_predicting)

    scores = make_loop(Forward(), Stop()).predict([torch.ones(1, 2)] * 3)
    assert (1, [False]) == (len(scores), ends)


def test_predict_inside_a_run_is_an_error():
    """Only validate() can be called while the loop is running."""

    class Predict(LoopComponent):
        def on_batch_end(self, loop):
            loop.predict([torch.ones(1, 2)])

    with pytest.raises(RunError, match=r"predict\(\) was called while this loop is running"):
        make_loop(Predict(), train_data=[torch.ones(1, 2)]).train(1)


def test_validate_inside_a_prediction_is_an_error():
    """An evaluation has no evaluation inside it."""

    class Validate(LoopComponent):
        def on_batch_end(self, loop):
            loop.validate()

    with pytest.raises(RunError, match=r"validate\(\) was called inside a predict epoch"):
        make_loop(Forward(), Validate(), valid_data=[0]).predict([torch.ones(1, 2)])


def test_data_that_cannot_be_iterated_over_are_refused():
    """Bad data are refused before any hook is called."""
    with pytest.raises(ArgumentError, match="data is 5, which cannot be iterated over"):
        make_loop().predict(5)


def test_around_epoch_may_replace_the_data_of_a_prediction():
    """A wrapper that sets loop.data before its yield limits a prediction."""

    class First(LoopComponent):
        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            loop.data = loop.data[:1]
            return (yield)

    loop = make_loop(First(), Forward())
    assert 1 == len(loop.predict([torch.ones(1, 2)] * 3))
    assert 1 == loop.n_batches


def test_prediction_before_training_resumes_uses_the_loaded_model():
    """Scores are those of the model in a state that waits for train()."""

    class Keep(LoopComponent):
        def on_safe_point(self, loop):
            self.state = loop.state_dict()

    keep = Keep()
    trained = make_loop(keep, train_data=[0])
    trained.train(1)
    other = make_loop(Forward(), train_data=[0])
    other.load_state_dict(keep.state)
    (scores,) = other.predict([torch.ones(1, 2)])
    assert trained.model(torch.ones(1, 2)).tolist() == scores.tolist()


def test_data_that_are_used_up_are_an_error():
    """Not an empty result."""
    loop, data = make_loop(Forward()), iter([torch.ones(1, 2)])
    loop.predict(data)
    with pytest.raises(RunError, match="had no batch in its data, a list_iterator, which is used"):
        loop.predict(data)
