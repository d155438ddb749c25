"""Methods that add a multiple of a vector, found by few gradients or by fine-tuning, to the weights."""
