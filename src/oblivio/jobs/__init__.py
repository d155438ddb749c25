"""Jobs: from a request in words to a model that has forgotten, with all that it takes on the way."""
