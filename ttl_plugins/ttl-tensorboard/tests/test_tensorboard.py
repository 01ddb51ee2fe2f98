"""What TensorBoard's own reader finds in the event files."""

import errno
import io
import json
import math
import shutil

import pytest
import torch
from loops import act_at
from states import make_data, make_step_loop
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from ttl_tensorboard import Tensorboard
from ttl_tensorboard.event_file import EventFile

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop
from ttl_core.testing import ComponentConformance


def read(directory):
    """Return what the reader of TensorBoard finds in a directory."""
    kinds = ("scalars", "tensors", "images", "histograms")
    return EventAccumulator(str(directory), dict.fromkeys(kinds, 0)).Reload()  # 0: all of them


def scalars(directory, *names):
    """Return the (step, value) pairs of a directory by name."""
    found = read(directory)
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in names or found.Tags()["scalars"]
    }


def texts(directory, name):
    """Return the texts of a name."""
    return [e.tensor_proto.string_val[0].decode() for e in read(directory).Tensors(name)]


def hyperparameters(directory, tag):
    """Return what is written about hyperparameters with a tag of TensorBoard's own."""
    content = read(directory).SummaryMetadata(tag).plugin_data.content
    data = HParamsPluginData.FromString(content)
    return getattr(data, data.WhichOneof("data"))


class Log(LoopComponent):
    """Values of batches and epochs; those of each batch are others."""

    def __init__(self, **values):
        self.values = values

    def on_batch_end(self, loop):
        loop.log({"a": torch.tensor(loop.global_step / 8), "b": -loop.global_step} | self.values)

    def on_epoch_end(self, loop):
        loop.log({"epoch": loop.epoch_num}, level="epoch")


def train(directory, *others, n_epochs=1, log=Log, **config):
    """Train, and return the component."""
    board = Tensorboard(directory, **config)
    make_step_loop(log(), *others, board, step=LoopComponent).train(n_epochs)
    return board


def test_numbers_are_scalars_at_the_steps_of_the_loop(tmp_path):
    """Those of batches and of epochs, each once."""
    train(tmp_path, n_epochs=2)
    expected = {
        "train/a": [(step, step / 8) for step in range(1, 7)],
        "train/b": [(step, -step) for step in range(1, 7)],
        "train/epoch": [(3, 0), (6, 1)],
    }
    assert expected == scalars(tmp_path)


def test_all_numbers_of_a_record_are_one_event(tmp_path):
    """The file has as many summaries of numbers as there were calls of loop.log()."""
    board = train(tmp_path)
    assert 4 == board.path.read_bytes().count(b"train/a") + 1


def test_values_that_are_not_finite_stay(tmp_path):
    """NaN and infinity are values of TensorBoard too; what is beyond single precision is infinite.

    Other values of the same call stay as they are.
    """
    values = {"nan": math.nan, "inf": math.inf, "big": -(10**400), "large": 1e300, "half": 0.5}
    train(tmp_path, log=lambda: Log(**values))
    found = scalars(tmp_path, *(f"train/{name}" for name in values))
    assert {math.inf} == {value for _, value in found["train/inf"] + found["train/large"]}
    assert {0.5} == {value for _, value in found["train/half"]}
    assert {-math.inf} == {value for _, value in found["train/big"]}
    assert all(math.isnan(value) for _, value in found["train/nan"])


def test_calls_with_other_names_in_turn_are_written(tmp_path, monkeypatch):
    """Each has its own values, also where more names come than are kept."""
    monkeypatch.setattr("ttl_tensorboard.events._MAX_ENCODERS", 2)

    def log(loop):
        loop.log({"a": loop.batch_num / 2})
        loop.log({f"b{loop.batch_num % 3}": loop.batch_num, "c": -1})

    loop = TrainTestLoop(torch.nn.Identity(), [act_at("on_batch_end", log)], range(300))
    loop.components.append(Tensorboard(tmp_path))
    loop.train(1)
    found = scalars(tmp_path)
    assert [i / 2 for i in range(300)] == [value for _, value in found["train/a"]]
    assert [-1] * 300 == [value for _, value in found["train/c"]]
    for i in range(3):
        assert [*range(i, 300, 3)] == [value for _, value in found[f"train/b{i}"]]


@pytest.mark.parametrize("name", ["", "ü €", "a b/c", "\ud800"])
def test_any_name_is_written(tmp_path, name):
    """What is no valid text is written as its escape."""
    train(tmp_path, log=lambda: Log(**{name: 1}))
    shown = "train/" + name.encode("utf-8", "backslashreplace").decode()
    assert [(1, 1), (2, 1), (3, 1)] == scalars(tmp_path, shown)[shown]


def test_images_and_texts_are_shown(tmp_path):
    """Images are tensors of shape (C, H, W) or (N, C, H, W), of bytes or from 0 to 1."""
    values = {
        "image": torch.rand(3, 4, 5),
        "images": torch.zeros(2, 1, 4, 5, dtype=torch.uint8),
        "text": "so *far*",
    }
    train(tmp_path, log=lambda: Log(**values))
    found = read(tmp_path)
    assert [(1, 4, 5), (2, 4, 5), (3, 4, 5)] == [
        (e.step, e.height, e.width) for e in found.Images("train/image")
    ]
    assert {"train/image", "train/images"} == set(found.Tags()["images"])
    assert ["so *far*"] * 3 == texts(tmp_path, "train/text/text_summary")


@pytest.mark.parametrize("value", [torch.zeros(2, 3), None, {"a": 1}, torch.zeros(0)], ids=str)
def test_other_values_are_left_out_with_one_message(tmp_path, caplog, value):
    """It names the value, its type, and what can be written."""
    train(tmp_path, log=lambda: Log(odd=value))
    expected = (
        f"tensorboard: 'train/odd' is not written: a {type(value).__name__} is no number, text, or "
        "image of shape (C, H, W)"
    )
    assert [expected] == caplog.messages
    assert 3 == len(scalars(tmp_path)["train/a"])


def test_the_run_is_described(tmp_path):
    """Its configuration as text and as hyperparameters, and its manifest."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Log(), Tensorboard(tmp_path), "progress"],
        make_data(),
    )
    loop.train(1)
    (manifest,) = texts(tmp_path, "manifest/text_summary")
    assert loop.manifest() == json.loads(manifest.strip("`\n"))
    assert (
        "| components | `log, tensorboard, progress` |"
        in texts(tmp_path, "configuration/text_summary")[0]
    )
    start = hyperparameters(tmp_path, metadata.SESSION_START_INFO_TAG)
    assert "log, tensorboard, progress" == start.hparams["components"].string_value


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (None, api_pb2.STATUS_SUCCESS),
        (ValueError, api_pb2.STATUS_FAILURE),
        (KeyboardInterrupt, api_pb2.STATUS_UNKNOWN),
    ],
)
def test_how_the_run_has_ended_is_written(tmp_path, raised, status):
    """As the status of its hyperparameters."""

    def fail(loop):
        if raised:
            raise raised

    ending = act_at("on_train_end", fail)
    if raised:
        with pytest.raises(raised):
            train(tmp_path, ending)
    else:
        train(tmp_path, ending)
    assert status == hyperparameters(tmp_path, metadata.SESSION_END_INFO_TAG).status


def test_histograms_of_weights_and_gradients_are_written(tmp_path):
    """At each so many steps, of the gradients with which the optimizer has stepped."""
    board = Tensorboard(tmp_path, histograms=2)
    loop = make_step_loop(board)
    loop.train(2)
    found = read(tmp_path)
    names = [name for name, _ in loop.model.named_parameters()]
    assert {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names} == set(
        found.Tags()["histograms"]
    )
    last = found.Histograms("weights/0.weight")[-1]
    weight = loop.model[0].weight.double()
    assert [2, 4, 6] == [event.step for event in found.Histograms("weights/0.weight")]
    assert weight.numel() == last.histogram_value.num == sum(last.histogram_value.bucket)
    assert pytest.approx(weight.sum().item()) == last.histogram_value.sum
    assert pytest.approx(weight.max().item()) == last.histogram_value.bucket_limit[-1]


def test_gradients_that_are_not_finite_do_not_end_training(tmp_path):
    """Their histogram is one of the finite values, and there is none where all are not."""

    def spoil(loop):
        loop.model[0].weight.grad[0] = math.nan
        loop.model[0].bias.grad[:] = math.inf

    make_step_loop(act_at("on_batch_end", spoil), Tensorboard(tmp_path, histograms=1)).train(1)
    found = read(tmp_path)
    assert "gradients/0.bias" not in found.Tags()["histograms"]
    assert 28 == found.Histograms("gradients/0.weight")[0].histogram_value.num


def test_the_graph_of_the_model_is_traced(tmp_path):
    """On a copy, so that the run is the same with it."""
    board = Tensorboard(tmp_path, graph=torch.zeros(2, 4))
    loop = make_step_loop(Log(), board)
    loop.train(1)
    other = make_step_loop(Log())
    other.train(1)
    assert read(tmp_path).Tags()["graph"]
    assert str(other.model.state_dict()) == str(loop.model.state_dict())


def test_a_model_that_cannot_be_traced_is_said(tmp_path, caplog):
    """Training continues."""
    train(tmp_path, graph=torch.zeros(2, 3))
    (message,) = caplog.messages
    assert "tensorboard: 'graph' is not written: the model cannot be traced: " in message
    assert 3 == len(scalars(tmp_path)["train/a"])


# -- resuming -------------------------------------------------------------------------------


def resume_from_each_state(directory, **values):
    """Yield what is in the directory after resuming from each state of a run of two epochs."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    train(directory, keep, n_epochs=2, log=lambda: Log(**values))
    yield read(directory)
    for state in tuple(states):
        loop = make_step_loop(Log(**values), keep, Tensorboard(directory), step=LoopComponent)
        loop.load_state_dict(state, ignore=["keep"])
        loop.train(2)
        yield read(directory)


def test_a_resumed_run_shows_each_value_once(tmp_path):
    """From any safe point, also in the midst of the values of a step."""
    shown = [
        {
            name: [(event.step, event.value) for event in found.Scalars(name)]
            for name in found.Tags()["scalars"]
        }
        for found in resume_from_each_state(tmp_path)
    ]
    assert [shown[0]] * len(shown) == shown


def test_images_of_the_step_of_a_state_are_kept(tmp_path):
    """They are copied, as they are not part of the state."""
    for found in resume_from_each_state(tmp_path, image=torch.zeros(1, 2, 2)):
        assert [1, 2, 3, 4, 5, 6] == [event.step for event in found.Images("train/image")]


def test_a_run_that_starts_again_hides_what_is_there(tmp_path):
    """As where one was killed before its first checkpoint."""
    train(tmp_path, n_epochs=2)
    train(tmp_path)
    assert [1, 2, 3] == [step for step, _ in scalars(tmp_path)["train/a"]]


def test_a_test_is_added_to_what_is_there(tmp_path):
    """It hides nothing."""
    train(tmp_path)
    loop = make_step_loop(Log(), Tensorboard(tmp_path), step=LoopComponent)
    loop.test(make_data(1))
    found = scalars(tmp_path)
    assert [(0, 0)] == found["test/epoch"]
    assert 3 == len(found["train/a"])


def test_a_second_run_of_a_loop_uses_the_same_file(tmp_path):
    """So that many short runs do not leave many files."""
    loop = make_step_loop(Log(), Tensorboard(tmp_path), step=LoopComponent)
    loop.train(1)
    loop.train(1)
    assert 1 == len(list(tmp_path.iterdir()))
    assert [1, 2, 3, 4, 5, 6] == [step for step, _ in scalars(tmp_path)["train/a"]]


def test_a_moved_directory_without_the_last_file_resumes(tmp_path):
    """Only the values of the step of the state are missing."""
    states = []
    train(tmp_path / "a", act_at("on_safe_point", lambda loop: states.append(loop.state_dict())))
    loop = make_step_loop(
        Log(), act_at("on_safe_point", bool), Tensorboard(tmp_path / "b"), step=LoopComponent
    )
    loop.load_state_dict(states[0], ignore=["keep"])
    loop.train(1)
    assert [2, 3] == [step for step, _ in scalars(tmp_path / "b")["train/a"]]


# -- failures -------------------------------------------------------------------------------


def test_a_full_disk_leaves_whole_events(tmp_path, monkeypatch, caplog):
    """What has been written in part is removed, and written when there is space."""
    n_writes = []

    class Full(io.FileIO):
        def write(self, data):
            n_writes.append(len(data))
            if len(n_writes) == 3:
                return super().write(data[: len(data) // 2])
            if len(n_writes) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(
        "ttl_tensorboard.event_file.open_unbuffered", lambda path: Full(path, "r+b")
    )
    board = Tensorboard(tmp_path)
    flush = act_at("on_batch_end", lambda loop: board.flush())
    make_step_loop(Log(), board, flush, step=LoopComponent).train(1)
    assert [1, 2, 3] == [step for step, _ in scalars(tmp_path)["train/a"]]
    assert 1 == len(caplog.messages)


def test_files_of_one_second_are_in_the_order_in_which_they_were_made(tmp_path):
    """Each has a later time in its name than those before it."""
    paths = [EventFile(tmp_path).path for _ in range(12)]
    assert sorted(paths) == paths


def test_a_directory_is_required():
    """The error comes before training, and names both ways to give one."""
    loop = make_step_loop(Tensorboard())
    for run in (lambda: loop.train(1), lambda: loop.test(make_data(1))):
        with pytest.raises(ArgumentError, match="run-folder"):
            run()


def test_a_directory_that_is_removed_during_the_run_is_made_anew(tmp_path, caplog):
    """What is logged from then on is in a new file, after one message."""
    board = Tensorboard(tmp_path / "board")

    def remove(loop):
        if loop.epoch_num == 1:
            board.flush()
            shutil.rmtree(tmp_path / "board")

    make_step_loop(Log(), act_at("on_epoch_begin", remove), board).train(2)
    assert scalars(tmp_path / "board")["train/a"]
    (message,) = caplog.messages
    assert message.endswith("A new file is begun")


def test_a_directory_that_cannot_be_written_to_is_an_error_before_work_starts(tmp_path):
    """A run of days does not end without its values."""
    (tmp_path / "file").touch()
    loop = make_step_loop(Tensorboard(tmp_path / "file" / "runs"))
    for run in (lambda: loop.train(1), lambda: loop.test(make_data(1))):
        with pytest.raises(ArgumentError, match="'tensorboard' cannot write to its directory"):
            run()


def test_the_folder_of_the_run_is_the_default(tmp_path):
    """A folder in it has the event files."""

    def set_folder(loop):
        loop.run_folder = tmp_path

    board = Tensorboard()
    make_step_loop(act_at("on_train_begin", set_folder), Log(), board).train(1)
    assert tmp_path / "tensorboard" == board.path.parent
