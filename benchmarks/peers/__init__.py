"""Engines that run the same networks as sparsec, and what it takes to measure them side by side."""

import sys
from pathlib import Path

# How the tests draw weights and convert for LiteRT is of use here too.
sys.path.append(str(Path(__file__).parents[2] / "tests"))
