"""Methods that use sparse weights."""
