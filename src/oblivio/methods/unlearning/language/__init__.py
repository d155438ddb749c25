"""Unlearning of language models: what is said of a text, token by token."""
