"""Fixtures that several files share."""

from __future__ import annotations

import pytest
from emulation import PARAMETERS, use


@pytest.fixture(params=PARAMETERS)
def isa(request, monkeypatch):
    """Each instruction set in turn, those that are emulated included; what runs in the native library runs with it."""
    use(request.param, monkeypatch)
    return request.param
