"""Learners: what owns its training, keeps learning and forgets on request."""

from oblivio.learners.learner import Learner

__all__ = ["Learner"]
