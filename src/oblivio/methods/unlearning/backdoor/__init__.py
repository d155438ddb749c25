"""Methods that take a backdoor out of a model without knowing its trigger."""
