"""Hows that several methods share: what is done to the gradient, or to the weights after."""

from oblivio.how.clip import clip
from oblivio.how.limit import limit
from oblivio.how.pull import pull
from oblivio.how.shrink_perturb import shrink_perturb

__all__ = ["clip", "limit", "pull", "shrink_perturb"]
