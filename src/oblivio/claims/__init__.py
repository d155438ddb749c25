"""Claims: a method's headline result as a small experiment that can fail. One file a claim, beside the runner."""
