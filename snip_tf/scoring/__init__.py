"""What a model minimizes, and its gradients on mini-batches."""
