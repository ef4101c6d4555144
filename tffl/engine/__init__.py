"""The federated loop: compiled client training, placement, evaluation and simulation."""
