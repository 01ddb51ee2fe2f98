"""The example of text, and the script that measures on a GPU."""

import re

import pytest
import torch
from examples import FOLDER, run_example
from programs import python_output

pytestmark = pytest.mark.check


def test_the_text_example_learns_more_than_how_frequent_characters_are():
    """The transformer gets far below the loss of a unigram model, with everything by name.

    It sees 12 characters at once instead of 64, of a quarter of the text, for one epoch instead of
    five: that suffices, and takes a fraction of the time.
    """
    code = """
from pydoc_data import topics
topics.topics = dict(list(topics.topics.items())[::4])
import text
text.LENGTH = 12
text.main(n_epochs=1)
"""
    printed = python_output(code, cwd=FOLDER)
    losses = dict(re.findall(r"^  (network|unigram) +([\d.]+) nats", printed, re.MULTILINE))
    assert float(losses["network"]) < 0.8 * float(losses["unigram"])


def test_the_gpu_script_says_what_it_did():
    """Without a GPU, the script that measures on one says that it was not run."""
    printed = run_example(FOLDER / "measure_gpu.py")
    assert torch.cuda.is_available() or printed == "Not run: there is no GPU.\n"
