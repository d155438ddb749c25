"""Benches: what is measured, against what, and the limit it has to keep. ``speed`` is ``oblivio bench speed``."""
