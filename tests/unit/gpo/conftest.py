from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that only this test knows, and returns its name; the search path is put back afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(source: str) -> str:
        name = f"own_{uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return name

    return write
