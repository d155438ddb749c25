"""Methods that learn from noise in place of the forgotten rows."""
