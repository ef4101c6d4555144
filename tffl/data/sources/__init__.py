"""Data of the user's own: what lies at a path, and a file for each kind that reads it."""
