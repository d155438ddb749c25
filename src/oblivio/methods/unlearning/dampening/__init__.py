"""Methods that scale weights down, without training."""
