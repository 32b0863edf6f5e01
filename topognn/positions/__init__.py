"""Where the nodes of a partition stand, and that edges there are a product: of channels, of rows and of columns."""
