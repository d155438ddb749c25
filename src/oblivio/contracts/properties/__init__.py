"""The properties of every method. Each is a function of a Case that yields a message for everything that is wrong."""

from oblivio.contracts.case import PROPERTIES
from oblivio.contracts.properties import alone, exact, losses, texts, weights, words

__all__ = ["PROPERTIES", "alone", "exact", "losses", "texts", "weights", "words"]
