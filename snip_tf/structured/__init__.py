"""Whole units: which to remove, and the smaller model without them."""
