"""Exit codes."""

from __future__ import annotations

FINISHED, FAILED, BAD_INPUT, REJECTED, INCONCLUSIVE = range(5)
