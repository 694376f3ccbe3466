"""From drives to files: which moments, which questions, in which formats, in any number of processes."""
