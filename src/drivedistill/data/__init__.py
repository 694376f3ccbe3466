"""What the world gave us: published data sets in, `Sample`s and `Batch`es out."""
