"""Methods that act on features."""
