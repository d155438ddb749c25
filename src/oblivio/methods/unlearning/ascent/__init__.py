"""Methods that raise the loss of the forgotten rows."""
