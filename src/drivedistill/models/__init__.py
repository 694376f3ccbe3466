"""Who learns: model families, all used through `Student`."""
