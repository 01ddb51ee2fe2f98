"""The program of the seed's document, with nothing changed but its import."""

import pytest
from environments import ROOT
from programs import python_output


@pytest.fixture(scope="module")
def printed():
    """Run the program, and print at its end whether installed distributions were scanned."""
    program = ROOT / "tests" / "integration" / "seed_program.py"
    return python_output(
        f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')\n"
        "from ttl_core.discovery import scanning; print('scan:', scanning._newest_scan)"
    )


def test_the_program_of_the_seeds_document_prints_what_the_document_says(printed):
    """The seed's own program runs with nothing changed but its import."""
    assert ["Done.", "Saved."] == printed.splitlines()[:-1]


def test_hand_made_components_train_without_discovery(printed):
    """A loop of hand-made components does not scan installed distributions."""
    assert "scan: None" == printed.splitlines()[-1]
