"""Pre-training a small vision tower on what a data set knows about its pictures."""
