"""Pruning while training: callbacks that change the masks of a pruned model."""
