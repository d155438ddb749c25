"""Methods that keep to what earlier models say."""
