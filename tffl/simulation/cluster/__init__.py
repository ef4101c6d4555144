"""Clients trained on many machines: who takes part, what travels, and what a worker does."""
