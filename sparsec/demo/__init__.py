"""The whole story on real data: train, prune, compile, verify, measure."""

from sparsec.demo.story import DemoResult, check_extras, run_demo

__all__ = ["DemoResult", "check_extras", "run_demo"]
