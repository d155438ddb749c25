"""Methods that keep groups of rows, such as a target with an attribute, as accurate as they were."""
