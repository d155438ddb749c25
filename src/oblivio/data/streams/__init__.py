"""Streams of experiences: what a model learns from, in the order in which it comes."""
