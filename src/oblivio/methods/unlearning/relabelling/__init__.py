"""Methods that train the forgotten rows towards other labels."""
