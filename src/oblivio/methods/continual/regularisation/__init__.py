"""Methods that hold weights where earlier experiences left them, each as much as it mattered there."""
