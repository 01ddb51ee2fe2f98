"""loop.metrics: the newest epoch-level values, as Python numbers."""

import json

import numpy as np
import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop


def logged(**values):
    """Return the metrics of a loop in which values were logged at epoch level."""
    loop = TrainTestLoop(torch.nn.Identity())
    loop.log(values, level="epoch")
    return loop.metrics


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(0.5), 0.5),
        (torch.tensor([3]), 3),
        (torch.tensor(True), True),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.nn.Parameter(torch.tensor(2.0)), 2.0),
        (np.float32(0.5), 0.5),
        (np.array([2]), 2),
        (7, 7),
        ("text", "text"),
    ],
    ids=repr,
)
def test_a_single_number_of_any_library_reads_as_one_of_python(value, expected):
    """The type is that of Python, too."""
    found = logged(x=value)["x"]
    assert (expected, type(expected)) == (found, type(found))


def test_a_tensor_of_several_numbers_stays_a_tensor():
    """What is no single number is read as it was logged."""
    assert [1.0, 2.0] == logged(x=torch.tensor([1.0, 2.0]))["x"].tolist()


def test_metrics_can_be_written_as_json():
    """Numbers of tensors and of NumPy need no conversion by hand."""
    found = logged(loss=torch.tensor(0.5), n=np.int64(3))
    assert '{"loss": 0.5, "n": 3}' == json.dumps(found)


def test_a_value_is_converted_once_and_when_it_is_read():
    """Logging does not wait for a device; the first read does, and later ones do not."""
    conversions = []

    class Slow(torch.Tensor):
        def item(self):
            conversions.append(1)
            return super().item()

    loop = TrainTestLoop(torch.nn.Identity())
    loop.log({"x": torch.tensor(1.0).as_subclass(Slow)}, level="epoch")
    assert [] == conversions
    assert 1.0 == loop.metrics["x"] == loop.metrics["x"]
    assert [1] == conversions


def test_consumers_of_on_log_get_the_tensor():
    """on_log passes values as they were logged, detached."""
    seen = []

    class Look(LoopComponent):
        def on_log(self, loop, metrics, level):
            seen.append(metrics["x"])

    loop = TrainTestLoop(torch.nn.Identity(), [Look()])
    loop.log({"x": torch.tensor(1.0, requires_grad=True)}, level="epoch")
    assert isinstance(seen[0], torch.Tensor)
    assert not seen[0].requires_grad


def test_metrics_can_be_assigned():
    """A new dict takes the place of the old one, and its tensors read as numbers."""
    loop = TrainTestLoop(torch.nn.Identity())
    loop.log({"x": 1}, level="epoch")
    loop.metrics = {"y": torch.tensor(2)}
    assert {"y": 2} == loop.metrics


def test_a_resumed_run_has_the_metrics_of_the_state():
    """They are in the state as Python numbers."""

    class Log(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"x": torch.tensor(loop.epoch_num + 0.5)}, level="epoch")

        def on_safe_point(self, loop):
            self.state = loop.state_dict()

    log = Log()
    TrainTestLoop(torch.nn.Identity(), [log], [0]).train(1)
    assert {"train/x": 0.5} == log.state["metrics"]
    loop = TrainTestLoop(torch.nn.Identity(), [LoopComponent()], [0])
    loop.load_state_dict(log.state)
    loop.train(1)
    assert {"train/x": 0.5} == loop.metrics


def test_the_repr_of_a_loop_says_what_it_is():
    """Model, data, components and position are in it, in two lines."""

    class Step(LoopComponent): ...

    loop = TrainTestLoop(torch.nn.Linear(2, 1), [Step()], [1, 2], {"easy": [1], "hard": iter([])})
    loop.train(0)
    assert (
        "TrainTestLoop(model=Linear, train_data=<2 batches in a list>, valid_data={easy: <1 "
        "batches in a list>, hard: <batches of unknown number in a list_iterator>},\n"
        "    components=[step], epoch_num=0, global_step=0)"
    ) == repr(loop)


def test_explanations_show_as_text_in_a_notebook():
    """Their repr, which a notebook shows, is the text itself."""

    class Step(LoopComponent):
        def on_batch_end(self, loop): ...

    text = TrainTestLoop(torch.nn.Identity(), [Step()]).explain("on_batch_end")
    assert str(text) == repr(text)
    assert "\n" in text
