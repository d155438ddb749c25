"""Methods that store rows and learn them again."""
