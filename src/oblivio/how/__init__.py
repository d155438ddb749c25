"""Hows that several methods share: what is done to the gradient, or to the weights after."""

from oblivio.how.clip import clip

__all__ = ["clip"]
