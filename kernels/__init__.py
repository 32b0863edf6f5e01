"""Kernels: one body for one work item, compiled for the CPU and for CUDA from the same source."""
