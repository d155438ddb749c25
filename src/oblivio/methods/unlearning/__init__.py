"""Methods that make a model forget, one folder a family."""
