"""Attacks on language models: how much of what is to be gone comes back. One file an attack."""
