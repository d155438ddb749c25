"""History: how well a learner does on every task of a stream after each experience, and what follows from it.

>>> from oblivio.data.history import metrics
>>> R = [[0.9, 0.1, 0.1], [0.6, 0.8, 0.2], [0.7, 0.5, 0.9]]
>>> round(metrics.bwt(R), 12), round(metrics.fm(R), 12), round(metrics.la(R), 12)
(-0.25, 0.25, 0.866666666667)
"""

from oblivio.data.history.history import History
from oblivio.data.history.seeds import Mean, interval, paired
from oblivio.data.history.trace import Points, Trace

__all__ = ["History", "Mean", "Points", "Trace", "interval", "paired"]
