"""What is learnt: teachers, losses, objectives."""
