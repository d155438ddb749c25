"""Methods for models whose targets are numbers."""
