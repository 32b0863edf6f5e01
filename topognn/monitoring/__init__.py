"""Topometrics inside a training loop."""
