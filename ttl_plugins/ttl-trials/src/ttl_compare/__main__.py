"""Compare variants of a loop: `python -m ttl_compare train.py:make_loop ema sam`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ttl_trials.command import command

from ttl_core import TTLError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `ttl compare`, and return its exit status.

    Args:
        arguments: the command line; that of the process by default.
    """
    parser = argparse.ArgumentParser(prog="python -m ttl_compare")
    command(parser)
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except TTLError as error:
        print(f"ttl: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
