"""The clocked engine: the timing contract in Python, one object a unit, one call a cycle."""

from pgsim.model.clocked.machine import Machine, Operands, run_clocked

__all__ = ["Machine", "Operands", "run_clocked"]
