"""Probes, found by their files: one idea a file."""
