"""What the committed records of claims say of a method, without running or importing anything heavy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

NOT_RUN = "not yet run"


def of(method: str, methods: Iterable[str]) -> list[dict[str, Any]]:
    """The records of a method's claims: of ids that begin with its name, and with no longer name of ``methods``."""
    from oblivio.claims.records import FOLDER

    longer = tuple(name for name in methods if name.startswith(method) and name != method)
    paths = [path for path in sorted(FOLDER.glob(f"{method}*.json")) if not path.stem.startswith(longer)]
    return [json.loads(path.read_text()) for path in paths]


def verdict(method: str, methods: Iterable[str]) -> str:
    """In a few words."""
    found = [record["verdict"] for record in of(method, methods)]
    if len(found) > 1:
        return f"{found.count('holds')} of {len(found)} hold"
    return found[0] if found else NOT_RUN


def lines(method: str, methods: Iterable[str]) -> dict[str, str]:
    """One line a claim, by its id."""
    found = {f"Claim {r['id']}": f"{r['verdict']} over {len(r['seeds'])} seeds" for r in of(method, methods)}
    return found or {"Claim": NOT_RUN}
