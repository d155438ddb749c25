"""The core: one algebra of objectives, one training engine, and what makes a run exact and resumable."""
