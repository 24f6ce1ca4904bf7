"""Masks on the weights of a model, and copies of models with or without masks."""
