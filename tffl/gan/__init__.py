"""Audits clients' models with images that the server generates."""
