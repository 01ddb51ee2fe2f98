"""The programs of docs/examples, and what they print."""

import re
import sys

from environments import ROOT
from programs import output_of

FOLDER = ROOT / "docs" / "examples"
DIGITS = FOLDER / "digits.py"


def run_example(path, **options):
    """Run an example as a user does, and return what it printed."""
    return output_of(sys.executable, path, **options)


def assert_trained_well(printed):
    """Check what the example of digits printed: what ran, and the accuracy."""
    assert re.search(r"supervised +ttl-supervised \d", printed)
    assert re.search(r"metrics +ttl-metrics \d", printed)
    assert re.search(r"progress +ttl-progress \d", printed)
    assert re.search(r"count-mistakes +this script", printed)
    assert float(re.search(r"test accuracy ([\d.]+)", printed)[1]) > 0.97
