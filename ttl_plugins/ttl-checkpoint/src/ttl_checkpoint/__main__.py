"""List the checkpoints of a directory: `python -m ttl_checkpoint` is `ttl checkpoints`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ttl_checkpoint import selftest
from ttl_checkpoint.command import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `ttl checkpoints`, and return its exit status.

    Args:
        arguments: the command line; that of the process by default. `selftest SCRIPT` is the
            command `ttl selftest`. That of earlier versions to export weights, `export DIRECTORY
            -o FILE`, works too.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m ttl_checkpoint")
    if len(arguments) > 1 and arguments[0] == "selftest":  # alone, it is the name of a directory
        selftest.command(parser)
        given = parser.parse_args(arguments[1:])
        return int(given.run(given))
    command(parser)
    if len(arguments) > 1 and arguments[0] == "export":  # alone, it is the name of a directory
        outputs = ("-o", "--output")
        arguments = ["--export" if each in outputs else each for each in arguments[1:]]
    given = parser.parse_args(arguments)
    return int(given.run(given))


if __name__ == "__main__":
    sys.exit(main())
