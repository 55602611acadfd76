"""`python -m spe_dist` is `spe`."""

import sys

from spe_dist.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
