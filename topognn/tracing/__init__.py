"""From a PyTorch model and an input shape to a :class:`~topognn.tracing.layout.Layout`."""
