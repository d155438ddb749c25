"""Modules that models are built from or changed with, each beside its surgery."""
