"""Compare runs: `python -m ttl_report runs/* -o comparison.html` is `ttl report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ttl_report.command import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `ttl report`, and return its exit status.

    Args:
        arguments: the command line; that of the process by default.
    """
    parser = argparse.ArgumentParser(prog="python -m ttl_report")
    command(parser)
    given = parser.parse_args(arguments)
    return int(given.run(given))


if __name__ == "__main__":
    sys.exit(main())
