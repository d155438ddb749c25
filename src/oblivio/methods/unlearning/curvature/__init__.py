"""Methods that use the curvature of the loss: what the rows that stay would notice, and what a removal changes."""
