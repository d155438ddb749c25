"""Forgetting one class of Fashion-MNIST."""

from __future__ import annotations

from oblivio.claims.fashion import claim

CLAIM = claim("class", "class=3", "class 3 goes")
