"""The directory where none is given: in the folder of the run."""

from pathlib import Path

import pytest
from ttl_checkpoint import Checkpoint

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, hookimpl
from ttl_core.testing import ComponentConformance, Step


class Folder(LoopComponent):
    """A component that sets the folder of the run, as `run-folder` does."""

    def __init__(self, path):
        self.path = path

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop):
        loop.run_folder = self.path
        return (yield)


def loop_of(*components):
    """Return a loop of components, and a step."""
    model, data = ComponentConformance.make_model(), ComponentConformance.make_data()
    return TrainTestLoop(model, [*components, Step()], data, data)


def test_checkpoints_are_in_the_folder_of_the_run(tmp_path):
    """They are saved there, and a restarted script resumes from there."""
    saver = Checkpoint()
    assert saver.directory is None
    assert saver.best_path is None
    loop_of(Folder(tmp_path), saver).train(1)
    assert tmp_path / "checkpoints" == saver.directory
    loop = loop_of(Folder(tmp_path), Checkpoint())
    loop.train(2)
    assert 2 == loop.epoch_num
    assert 2 == len(list((tmp_path / "checkpoints").glob("0*")))


def test_a_directory_that_is_given_is_used(tmp_path):
    """The folder of the run does not replace it."""
    loop_of(Folder(tmp_path / "run"), Checkpoint(tmp_path / "own")).train(1)
    assert ["own"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("position", ["absent", "behind"])
def test_without_a_folder_the_error_says_what_to_do(tmp_path, position):
    """No directory, and no folder of the run: the error has both fixes."""
    others = [] if position == "absent" else [Folder(tmp_path)]
    with pytest.raises(ArgumentError) as caught:
        loop_of(Checkpoint(), *others).train(1)
    assert str(caught.value) == (
        "checkpoint has no directory: write use('checkpoint', directory=...), or put 'run-folder' "
        "before it in the list"
    )


def test_the_best_weights_are_loaded_from_there(tmp_path):
    """A script that does not train has to set the folder itself."""
    loop_of(Folder(tmp_path), Checkpoint(best="valid/loss"), LogLoss()).train(1)
    loop = loop_of()
    with pytest.raises(ArgumentError, match="checkpoint has no directory"):
        Checkpoint(best="valid/loss").load_best(loop)
    loop.run_folder = Path(tmp_path)
    best = Checkpoint(best="valid/loss").load_best(loop)
    assert tmp_path / "checkpoints" == best.parent


class LogLoss(LoopComponent):
    def on_epoch_end(self, loop):
        loop.log({"loss": loop.loss}, level="epoch")
