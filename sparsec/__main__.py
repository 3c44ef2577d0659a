"""``python -m sparsec``."""

import sys

from sparsec.cli import main

if __name__ == "__main__":
    sys.exit(main())
