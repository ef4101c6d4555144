"""Federated image classification in Flower, with some malicious nodes and a tffl defense."""
