"""Run the Python examples of every Markdown page as tests; hold what tests everywhere share."""

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"]
).pytest()


@pytest.fixture(scope="module")
def one_thread():
    """Compute in one thread: models are too small for more, which would wait for each other."""
    import torch  # most tests of the documentation need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
