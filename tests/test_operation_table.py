"""docs/operations.md names every operation that is read, and no other."""

from __future__ import annotations

from operation_table import PAGE, page


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text("utf-8") == page(), "write it again: python tests/operation_table.py"
