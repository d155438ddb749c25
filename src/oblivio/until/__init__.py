"""When to stop: functions of the problem for a Descent's ``until``. None of them looks at test rows."""

from oblivio.until.unseen import unseen

__all__ = ["unseen"]
