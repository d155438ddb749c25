"""What every method must hold to, and a check that it does: for the registry's methods and for your own.

>>> from oblivio import contracts, terms
>>> from oblivio.core.descent import Descent
>>> contracts.check(Descent(terms.fit("retain"), epochs=1), only="acts moves")
[]
"""

from oblivio.contracts.check import Failure, check, problems_of
from oblivio.contracts.problems import TABLE, Tiny
from oblivio.contracts.properties import PROPERTIES
from oblivio.contracts.streams import STREAM_PROPERTIES, check_stream

__all__ = ["PROPERTIES", "STREAM_PROPERTIES", "TABLE", "Failure", "Tiny", "check", "check_stream", "problems_of"]
