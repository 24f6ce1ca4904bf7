"""Training for `scripts/train.py`: optimizers, input pipeline, augmentation, loop."""
