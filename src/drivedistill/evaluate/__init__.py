"""How good: predictions, metrics, scores."""
