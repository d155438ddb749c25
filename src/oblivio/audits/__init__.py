"""Audits: what can be said about a model that should have forgotten. This release: a table beside retrained models."""
