"""oblivio: decide what a model learns, keeps and forgets, and show it."""
