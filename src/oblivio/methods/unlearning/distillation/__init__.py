"""Methods that imitate teachers: the frozen start on what stays, another on what goes."""
