"""What was measured of layers before there was an end-to-end graph: the other half of every comparison."""
