"""The verdict on requests to forget one class of Fashion-MNIST."""

from __future__ import annotations

from oblivio.claims.verdict import accuracies, claim

CLAIM = claim("class=3", "class 3 goes", {"a policy of accuracies alone": accuracies})
