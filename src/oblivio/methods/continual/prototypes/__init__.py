"""Methods that answer with what they know of each class: the nearest mean, prototype or distribution."""
