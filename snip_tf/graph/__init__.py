"""A model as a graph of calls, with a rule for each kind of layer."""
