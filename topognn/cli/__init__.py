"""The command ``topognn``."""
