"""Audit images of a server's own making, and what clients' models say of them."""
