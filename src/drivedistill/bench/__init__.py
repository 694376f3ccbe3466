"""Real time: several models answer the same questions side by side, one at a time, under one clock."""
