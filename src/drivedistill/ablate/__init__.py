"""Any table of a paper: rows x seeds of one recipe, run where they are missing, scored, compared."""
