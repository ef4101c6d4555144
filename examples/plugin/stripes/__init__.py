"""An attack, a defense, a model, a dataset and a metric of another package than tffl."""
