"""`python -m pgsim` is `pgsim`."""

import sys

from pgsim.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
