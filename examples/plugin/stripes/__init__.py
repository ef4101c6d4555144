"""An attack, a defense, a model and a dataset of another package than tffl."""
