"""A model as the calls it makes, and what each kind of layer does with features."""
