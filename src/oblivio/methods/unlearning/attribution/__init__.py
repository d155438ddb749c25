"""Methods that are told by data attribution what a model without the rows would answer."""
