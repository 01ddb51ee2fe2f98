"""What the tests with libraries share."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[4] / "docs" / "components"


@pytest.fixture
def run_example():
    """Return a function that runs the first example of the page of a component."""

    def run(component):
        text = (PAGES / f"{component}.md").read_text()
        code = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
        exec(compile(code, f"{component}.md", "exec"), {"__name__": "example"})

    return run
