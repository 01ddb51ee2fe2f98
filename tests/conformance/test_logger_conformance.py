"""The conformance suite of loggers: a correct one passes, and each bug is found."""

import math

import pytest
from specimens import failure

from ttl_core import Logger
from ttl_core.testing import LoggerConformance, Step

CHECKS = [name for name in vars(LoggerConformance) if name.startswith("test_")]


class Rows(Logger):
    """A logger without a bug, which keeps rows in memory."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def write(self, records):
        self.rows += [(r.step, *item) for r in records for item in r.values.items()]

    def position(self):
        return len(self.rows)

    def seek(self, position):
        del self.rows[position:]


class OnlyAppends(Rows):
    """It cannot go back."""

    def seek(self, position):
        pass


class OneByOne(Rows):
    """It writes each record as it comes, also where a later one fails."""

    def write(self, records):
        for record in records:
            super().write([record])


class RefusesNan(Rows):
    """It fails at each NaN, so that nothing behind it is ever written."""

    def write(self, records):
        if any(math.isnan(value) for record in records for value in record.values.values()):
            raise ValueError("NaN cannot be written")
        super().write(records)


class NamesOnly(Rows):
    """It keeps the newest of the values of one name in one call."""

    def write(self, records):
        newest = {name: (r.step, name, v) for r in records for name, v in r.values.items()}
        self.rows += newest.values()


def kit_for(make):
    """Return the suite for a logger in memory."""

    class Kit(LoggerConformance):
        def make_components(self):
            return [Step(), make()]

        def read_values(self, logger):
            return logger.rows

    return Kit()


@pytest.mark.parametrize("check", CHECKS)
def test_a_correct_logger_passes(check):
    """It has no failure in any of the checks of loggers."""
    assert "" == failure(kit_for(Rows), check)


@pytest.mark.parametrize(
    ("cls", "check", "words"),
    [
        (NamesOnly, "test_records_every_value_once", "it lacks 'train/"),
        (OnlyAppends, "test_goes_back_with_the_run", "it has too many of 'train/loss' = "),
        (OneByOne, "test_writes_again_what_a_failure_has_cut_off", "it has too many of 'train/l"),
        (RefusesNan, "test_takes_values_of_any_kind", "it lacks 'train/"),
        (Step, "test_records_every_value_once", "does not derive from Logger"),
    ],
)
def test_finds_what_a_store_has_too_much_or_lacks(cls, check, words):
    """The check finds the bug, and names a value."""
    assert words in failure(kit_for(cls), check)
