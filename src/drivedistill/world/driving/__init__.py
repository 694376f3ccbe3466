"""Scenes and how they are driven: roads, traffic, hazards, the expert driver."""
