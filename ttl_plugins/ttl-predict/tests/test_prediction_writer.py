"""The behaviour of `prediction-writer`."""

import contextlib
import json

import numpy
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from ttl_predict import PredictionWriter

from ttl_core import ArgumentError, Group, LoopComponent, RunError, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step, Stream


def read(directory):
    """Return the columns of all files in a folder, in the order of their list."""
    manifest = json.loads((directory / "_predictions.json").read_text())
    parts = []
    for part in manifest["parts"]:
        path = directory / part["file"]
        if manifest["format"] == "npz":
            parts.append({name: torch.tensor(value) for name, value in numpy.load(path).items()})
        elif manifest["format"] == "safetensors":
            parts.append(load_file(path))
        else:
            table = pyarrow.parquet.read_table(path)
            parts.append({n: torch.tensor(table[n].to_pylist()) for n in table.column_names})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def make_loop(*components):
    """Return a loop of plain steps and the given components."""
    return TrainTestLoop(ComponentConformance.make_model(), [Step(), *components])


def data(n=5):
    """Return batches, of which the last one is smaller."""
    *whole, (inputs, targets) = ComponentConformance.make_data(n)
    return [*whole, (inputs[:4], targets[:4])]


@pytest.mark.parametrize("is_stream", [False, True], ids=["list", "stream"])
@pytest.mark.parametrize("kind", ["parquet", "npz", "safetensors"])
def test_files_hold_what_predict_returns(tmp_path, kind, is_stream):
    """All formats have the scores of all batches, in the order of the data."""
    loop = make_loop(PredictionWriter(tmp_path, format=kind, every=2))
    scores = loop.predict(Stream(data()) if is_stream else data())
    torch.testing.assert_close(torch.cat(scores), read(tmp_path)["scores"], rtol=0, atol=0)
    manifest = json.loads((tmp_path / "_predictions.json").read_text())
    assert [12, 12, 4] == [part["n_rows"] for part in manifest["parts"]]
    assert manifest["is_complete"]


@pytest.mark.parametrize("kind", ["parquet", "npz", "safetensors"])
def test_columns_of_ones_own(tmp_path, kind):
    """Several columns, of any number of dimensions and type."""

    def columns(loop):
        return {
            "class": loop.scores.argmax(1),
            "half": loop.scores.bfloat16(),
            "outer": loop.scores[:, :, None] * loop.scores[:, None, :],
        }

    loop = make_loop(PredictionWriter(tmp_path, format=kind, columns=columns))
    scores = torch.cat(loop.predict(data()))
    written = read(tmp_path)
    assert torch.equal(scores.argmax(1), written["class"])
    assert torch.equal(scores.bfloat16().float(), written["half"].float())
    torch.testing.assert_close(scores[:, :, None] * scores[:, None, :], written["outer"])


class Fail(LoopComponent):
    """A component that fails, or stops, at a batch."""

    def __init__(self, at, action):
        self.at, self.action, self.n = at, action, 0

    def on_forward_pass(self, loop):
        if self.n == self.at:
            self.action(loop)
        self.n += 1


def interrupt(loop):
    """Fail as ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("action", [interrupt, lambda loop: loop.stop()], ids=["ctrl-C", "stop"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["list", "stream"])
def test_an_interrupted_prediction_resumes(tmp_path, is_stream, action):
    """The rest is computed alone, and the files are those of an uninterrupted prediction."""
    batches = Stream(data()) if is_stream else data()
    expected = torch.cat(make_loop().predict(batches))
    first = make_loop(Fail(3, action), PredictionWriter(tmp_path, every=2))
    with contextlib.suppress(KeyboardInterrupt):
        first.predict(batches)
    count = Fail(-1, None)
    make_loop(count, PredictionWriter(tmp_path, every=2)).predict(batches, collect=False)
    assert 2 == count.n
    torch.testing.assert_close(expected, read(tmp_path)["scores"], rtol=0, atol=0)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_prediction_of_some_batches_resumes(tmp_path, is_first):
    """A limit is that of the whole prediction, wherever the two are in the list."""
    limit = use("limit-batches", n=4)

    def predict(*components):
        writer = PredictionWriter(tmp_path, every=2)
        both = [writer, limit] if is_first else [limit, writer]
        make_loop(*components, *both).predict(data(), collect=False)

    with pytest.raises(KeyboardInterrupt):
        predict(Fail(3, interrupt))
    predict()
    expected = torch.cat(make_loop().predict(data()[:4]))
    torch.testing.assert_close(expected, read(tmp_path)["scores"], rtol=0, atol=0)


def test_a_file_that_cannot_be_written_is_named_and_the_prediction_resumes(tmp_path):
    """As on a full disk, when there is room again."""
    expected = torch.cat(make_loop().predict(data()))
    (tmp_path / "part-00001.parquet").mkdir()
    loop = make_loop(PredictionWriter(tmp_path, every=2))
    with pytest.raises(RunError, match=r"part-00001\.parquet: .* predict\(\) resumes"):
        loop.predict(data())
    (tmp_path / "part-00001.parquet").rmdir()
    assert 3 == len(loop.predict(data()))
    torch.testing.assert_close(expected, read(tmp_path)["scores"], rtol=0, atol=0)


def test_a_complete_one_is_written_anew(tmp_path):
    """Files of an earlier prediction that was longer do not stay."""
    loop = make_loop(PredictionWriter(tmp_path, every=1))
    loop.predict(data(5))
    scores = loop.predict(data(2))
    torch.testing.assert_close(torch.cat(scores), read(tmp_path)["scores"], rtol=0, atol=0)
    assert 2 == len(list(tmp_path.glob("part-*")))


def test_writes_into_the_folder_of_the_run(tmp_path):
    """Without a directory it is `predictions` in that of the run; without one an error says so."""
    loop = make_loop(use("run-folder", directory=tmp_path), "prediction-writer")
    loop.predict(data())
    assert (loop.run_folder / "predictions" / "part-00000.parquet").exists()
    with pytest.raises(ArgumentError, match="prediction-writer has no directory"):
        make_loop("prediction-writer").predict(data())


def test_training_and_testing_write_nothing(tmp_path):
    """It acts in predict() alone."""
    loop = make_loop(PredictionWriter(tmp_path))
    loop.train_data = loop.valid_data = data()
    loop.train(1)
    loop.test(data())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (lambda loop: {"mean": loop.scores.mean()}, "needs tensors by name"),
        (lambda loop: loop.scores.tolist(), "needs tensors by name"),
        (
            lambda loop: {"a": loop.scores, "b": loop.scores[:1]},
            "several lengths",
        ),
    ],
)
def test_what_cannot_be_written_is_an_error(tmp_path, columns, message):
    """It says what columns have to be."""
    with pytest.raises(RunError, match=message):
        make_loop(PredictionWriter(tmp_path, columns=columns)).predict(data())


def test_another_format_does_not_resume(tmp_path):
    """The error names both formats, and the way out."""
    with pytest.raises(KeyboardInterrupt):
        make_loop(Fail(3, interrupt), PredictionWriter(tmp_path, every=1)).predict(data())
    with pytest.raises(RunError, match=r"'parquet', but format is 'npz'.*resume=False"):
        make_loop(PredictionWriter(tmp_path, format="npz")).predict(data())


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    """Readers take it as it is, with the rows in the order of the data."""
    scores = torch.cat(make_loop(PredictionWriter(tmp_path, every=1)).predict(data(12)))
    table = pyarrow.parquet.read_table(tmp_path)
    assert scores.tolist() == table["scores"].to_pylist()


def interrupted(folder):
    """Leave the files of a prediction that was interrupted behind three batches."""
    with pytest.raises(KeyboardInterrupt):
        make_loop(Fail(3, interrupt), PredictionWriter(folder, every=2)).predict(data())


@pytest.mark.parametrize("n", [0, 2])
def test_data_with_fewer_batches_than_there_are_files_of_do_not_resume(tmp_path, n):
    """They are other data, of which the files are no predictions."""
    interrupted(tmp_path)
    with pytest.raises(RunError, match=rf"of 3 batches, but these data have {n}.*resume=False"):
        make_loop(PredictionWriter(tmp_path)).predict(data(5)[:n])
    assert not json.loads((tmp_path / "_predictions.json").read_text())["is_complete"]


def test_other_columns_do_not_resume(tmp_path):
    """The files would have no table in common; the error names both."""
    interrupted(tmp_path)
    writer = PredictionWriter(tmp_path, columns=lambda loop: {"class": loop.scores.argmax(1)})
    with pytest.raises(RunError, match=r"columns class to .* before have scores"):
        make_loop(writer).predict(data())


def test_a_group_of_processes_is_refused(tmp_path):
    """Each has a part of the samples, and would write the same files."""

    class Two(Group):
        size = 2

    class Join(LoopComponent):
        def join_group(self):
            return Two()

    with pytest.raises(RunError, match=r"group of 2\. Predict in one process"):
        make_loop(Join(), PredictionWriter(tmp_path)).predict(data())
    assert [] == list(tmp_path.iterdir())


def test_npz_files_have_columns_of_any_name(tmp_path):
    """Also of those that numpy.savez takes as its own arguments."""

    def columns(loop):
        return {"file": loop.scores, "allow_pickle": loop.scores}

    make_loop(PredictionWriter(tmp_path, format="npz", columns=columns)).predict(data())
    assert ["file", "allow_pickle"] == list(read(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"directory": 3}, "directory is 3"),
        ({"format": "csv"}, "format is 'csv'"),
        ({"columns": 3}, "columns is 3"),
        ({"every": 0}, "every is 0"),
        ({"resume": "no"}, "resume is 'no'"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        PredictionWriter(**config)
