"""Study: which layers of a teacher, and which of their signals, are worth imitating."""
