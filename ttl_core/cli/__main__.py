"""The command `ttl`, as `python -m ttl_core.cli`."""

import sys

from ttl_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
