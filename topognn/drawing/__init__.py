"""Pictures of small graphs."""

from topognn.drawing.svg import DrawingError, draw

__all__ = ["DrawingError", "draw"]
