"""The lower line: learning on without anything against forgetting."""
