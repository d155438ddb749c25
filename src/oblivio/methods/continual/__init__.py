"""Methods that learn one experience after another, one folder a family."""
