"""The command `ttl`: what is installed, what is wrong with it, and new packages.

Only `show`, `doctor` and `plugins --check` import plugins, and the last two do it in a process of
each plugin's own.
"""

from ttl_core.cli.main import main

__all__ = ["main"]
