"""Baselines: retraining, the standard that all are held against, and going on without the rows."""
