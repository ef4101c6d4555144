"""Judging model files of strangers."""
