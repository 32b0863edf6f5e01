"""Dynamic sparse training: weights are dropped and grown while the model trains."""

from __future__ import annotations

from topognn.pruning.dynamic.drop_and_grow import DropAndGrow
from topognn.pruning.dynamic.in_time import ITOP
from topognn.pruning.dynamic.reparameterization import DSR
from topognn.pruning.dynamic.rigged_lottery import RigL
from topognn.pruning.dynamic.sparse_evolution import SET
from topognn.pruning.dynamic.sparse_momentum import SNFS

__all__ = ["DSR", "DYNAMIC", "ITOP", "SET", "SNFS", "DropAndGrow", "RigL"]

DYNAMIC: dict[str, type[DropAndGrow]] = {"set": SET, "rigl": RigL, "itop": ITOP, "snfs": SNFS, "dsr": DSR}
