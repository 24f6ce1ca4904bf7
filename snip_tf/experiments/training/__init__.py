"""What `scripts/train.py` drives: optimizers, input pipeline, augmentation, loop."""
