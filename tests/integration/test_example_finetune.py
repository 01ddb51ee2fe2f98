"""The example of fine-tuning runs, learns, and leaves what its components write."""

import importlib.util
import json
import os

import pyarrow.dataset
import pytest
from examples import FOLDER


@pytest.mark.usefixtures("one_thread")
def test_the_example_of_fine_tuning(tmp_path, capsys):
    """A list of names fine-tunes to high accuracy, and predictions are of all test data."""
    spec = importlib.util.spec_from_file_location("finetune", FOLDER / "finetune.py")
    finetune = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(finetune)
    loop = finetune.main(os.fspath(tmp_path / "run"), n_epochs=4)
    assert loop.metrics["test/accuracy"] > 0.8
    folder = loop.run_folder / "predictions"
    listed = json.loads((folder / "_predictions.json").read_text())
    assert (600, True) == (sum(p["n_rows"] for p in listed["parts"]), listed["is_complete"])
    files = [folder / part["file"] for part in listed["parts"]]
    assert 600 == pyarrow.dataset.dataset(files).count_rows()
    assert "test accuracy" in capsys.readouterr().out
