"""A graph as a linear operator, by convolutions of its layers' weights or by its rows; sweeps from input to output."""

from topognn.operators.matrix import LinearOperator, linear_operator

__all__ = ["LinearOperator", "linear_operator"]
