"""What scripts can tell from how a command ended."""

from __future__ import annotations

OK, FAILED, BAD_CONFIG = 0, 1, 2
