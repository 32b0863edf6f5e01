"""Layers of a checkpoint without its model: found by name, read one at a time, measured, and forgotten."""
