"""Audits of language models: what a model says of a text, and what follows from it about memory, privacy and use."""
