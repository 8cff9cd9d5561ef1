"""Bit-accurate, cycle-level simulation of accelerators that run Precision Gating networks."""

__version__ = "0.1.0"
