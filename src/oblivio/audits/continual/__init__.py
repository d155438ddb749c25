"""Continual audit: what methods learn, keep and forget over a stream, what it costs, and one page that shows it.

``Meter`` reads costs, ``plasticity.probe`` what a network can still learn, ``Comparison`` holds the outcomes of all
methods, always with joint and naive training among them, and ``page`` shows it.
"""

from oblivio.audits.continual.comparison import Comparison, Outcome
from oblivio.audits.continual.page import page
from oblivio.audits.continual.resources import Ledger, Meter

__all__ = ["Comparison", "Ledger", "Meter", "Outcome", "page"]
