"""Methods for models on graphs."""
