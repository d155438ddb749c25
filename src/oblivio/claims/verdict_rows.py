"""The verdict on requests to forget five percent of the rows of Fashion-MNIST, drawn at random."""

from __future__ import annotations

from oblivio.claims.verdict import claim, unlearning_accuracy

CLAIM = claim(
    {"random": 0.05},
    "a random twentieth of its rows goes",
    {"a policy of the accuracy on forgotten rows alone": unlearning_accuracy},
)
