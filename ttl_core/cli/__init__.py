"""The command `ttl`: what is installed, what is wrong with it, and new packages.

Only `show`, `hooks`, `check`, `doctor` and `plugins --check` import packages with components, and
all but the first in other processes. A command that a package adds is imported when it is called.
"""

from ttl_core.cli.main import main

__all__ = ["main"]
