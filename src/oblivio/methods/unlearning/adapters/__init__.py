"""Methods that train small additions beside frozen weights."""
