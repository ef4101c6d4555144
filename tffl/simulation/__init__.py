"""The round loop, and what it shares between runs."""
