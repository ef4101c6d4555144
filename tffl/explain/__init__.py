"""Class activation maps of clients' models."""
