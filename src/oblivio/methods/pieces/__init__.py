"""Pieces: functions of a plan, to be put on any method that they suit."""
