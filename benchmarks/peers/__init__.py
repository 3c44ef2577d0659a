"""Engines that run the same networks as sparsec, and what it takes to measure them side by side."""
