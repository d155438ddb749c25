"""Methods that move the boundaries between classes."""
