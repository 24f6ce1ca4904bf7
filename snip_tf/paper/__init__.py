"""The experiments of Lee et al., 2019: what `scripts/reproduce.py` runs and draws."""
