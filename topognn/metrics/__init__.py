"""Topometrics: one function a metric, graph in, tensor on the graph's device out."""
