"""Selects which connections are kept, by their scores."""
