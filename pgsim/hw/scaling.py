"""Carry an energy or area figure from one logic node and voltage to another.

Stillmaker and Baas, "Scaling equations for the accurate prediction of CMOS device performance from 180 nm to 7 nm",
Integration 58 (2017): the energy of a switching event at V volts is E(V) = e2 V^2 + e1 V + e0 in the unit of the
node's coefficients, so figures scale by the ratio of destination to source. High-performance (HP) rows only: HP and
LP rows do not mix. Logic only: DRAM has its own process and never scales with these.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A row of the paper's tables: energy coefficients, the nominal voltage chosen here, area with 45 nm = 1."""

    e2: float
    e1: float
    e0: float
    nominal_v: float
    area: float


NODES: dict[int, Node] = {
    180: Node(0, 24.64, -17.98, 1.8, 19),
    130: Node(7.171, -6.709, 2.904, 1.3, 6.4),
    90: Node(4.762, -4.781, 2.092, 1.2, 2.8),
    65: Node(3.755, -4.398, 1.975, 1.1, 1.5),
    45: Node(1.018, -0.3107, 0.1539, 1.0, 1),
    32: Node(0.8367, -0.4341, 0.1701, 0.9, 0.46),
    20: Node(0.373, -0.1582, 0.04104, 0.9, 0.21),
    16: Node(0.2958, -0.1241, 0.03024, 0.85, 0.19),
    14: Node(0.2363, -0.09675, 0.02239, 0.8, 0.17),
    10: Node(0.2068, -0.09311, 0.02375, 0.75, 0.10),
    7: Node(0.1776, -0.09097, 0.02447, 0.7, 0.059),
}


def switching_energy(node_nm: int, voltage_v: float) -> float:
    """Return E(V) of a node in the paper's unit. Raises ValueError for a node without a row or a voltage of no use."""
    if node_nm not in NODES:
        raise ValueError(f"node must be one of {', '.join(map(str, NODES))} nm, not {node_nm}")
    node = NODES[node_nm]
    energy = node.e2 * voltage_v**2 + node.e1 * voltage_v + node.e0
    if voltage_v <= 0 or energy <= 0:
        raise ValueError(f"voltage must be one that {node_nm} nm logic runs at, not {voltage_v} V")
    return energy


def energy_factor(from_nm: int, from_v: float, to_nm: int, to_v: float) -> float:
    """Return what a logic energy at (from_nm, from_v) is multiplied by at (to_nm, to_v)."""
    return switching_energy(to_nm, to_v) / switching_energy(from_nm, from_v)


def area_factor(from_nm: int, to_nm: int) -> float:
    """Return what a logic area at from_nm is multiplied by at to_nm. Raises ValueError for a node without a row."""
    for node_nm in (from_nm, to_nm):
        if node_nm not in NODES:
            raise ValueError(f"node must be one of {', '.join(map(str, NODES))} nm, not {node_nm}")
    return NODES[to_nm].area / NODES[from_nm].area
