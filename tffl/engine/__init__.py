"""Compiled client training, evaluation and gradients, and the devices that they run on."""
