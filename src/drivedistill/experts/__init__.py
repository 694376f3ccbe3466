"""Experts: which ones a model uses for what, and whether corner cases use more of them."""
