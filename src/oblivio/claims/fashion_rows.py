"""Forgetting five percent of the rows of Fashion-MNIST, drawn at random."""

from __future__ import annotations

from oblivio.claims.fashion import claim

CLAIM = claim("rows", {"random": 0.05}, "a random twentieth of its rows goes", holds=("original >= references + 0.05",))
