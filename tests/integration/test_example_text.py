"""The example of text, and the script that measures on a GPU."""

import re

import torch
from examples import FOLDER, run_example
from programs import python_output


def test_the_text_example_learns_more_than_how_frequent_characters_are():
    """The transformer gets far below the loss of a unigram model, with everything by name.

    It sees 24 characters at once instead of 64, for one epoch instead of five: that suffices, and
    takes a quarter of the time.
    """
    printed = python_output("import text; text.LENGTH = 24; text.main(n_epochs=1)", cwd=FOLDER)
    losses = dict(re.findall(r"^  (network|unigram) +([\d.]+) nats", printed, re.MULTILINE))
    assert float(losses["network"]) < 0.6 * float(losses["unigram"])


def test_the_gpu_script_says_what_it_did():
    """Without a GPU, the script that measures on one says that it was not run."""
    printed = run_example(FOLDER / "measure_gpu.py")
    assert torch.cuda.is_available() or printed == "Not run: there is no GPU.\n"
