"""Which connections stay, by their scores."""
