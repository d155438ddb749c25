"""When to stop: functions of the problem for a Descent's ``until``, and of the visit for its ``epochs``.

None of them looks at test rows.
"""

from oblivio.until.first import first
from oblivio.until.unseen import unseen

__all__ = ["first", "unseen"]
