"""A run as one plain document for JSON: every integer exact, every action with its count (docs/results-format.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pgsim.results.frame import rows
from pgsim.results.layer import Energy, LayerResult
from pgsim.results.run import RunResult, Totals

FORMAT, VERSION = "pgsim-results", 1


def document(results: Iterable[RunResult]) -> dict[str, Any]:
    """Return mappings, lists, text, bools, ints, finite floats and None, ready for json.dump."""
    return {"format": FORMAT, "version": VERSION, "runs": [_run(result) for result in results]}


def _run(result: RunResult) -> dict[str, Any]:
    network = next(row for row in rows(result) if row["row"] == "network")
    return {
        "provenance": asdict(result.provenance),
        "organisation": result.organisation,
        "images": result.images,
        "clock_mhz": float(result.clock_mhz),
        "multiplier_bits": result.multiplier_bits,
        "area_um2": dict(result.area_um2),
        "seconds": result.seconds,
        "images_per_second": network["images_per_second"],
        "average_power_mw": network["average_power_mw"],
        "peak_layer_power_mw": result.peak_layer_power_mw,
        "energy_per_image_pj": network["energy_per_image_pj"],
        "energy_delay_pj_s": network["energy_delay_pj_s"],
        "assumed": list(result.assumed),
        "totals": {
            "network": _totals(result.totals()),
            "gated": _totals(result.totals(gated=True)),
            "not_gated": _totals(result.totals(gated=False)),
        },
        "layers": [_layer(layer) for layer in result.layers],
        "audit": [
            {"rule": c.name, "layer": c.layer, "expected": c.expected, "found": c.found, "holds": c.holds}
            for c in result.audit
        ],
    }


def _totals(totals: Totals) -> dict[str, Any]:
    plain = {name: value for name, value in vars(totals).items() if name != "energy"}
    return plain | {"energy": _energy(totals.energy)}


def _energy(energy: Energy) -> dict[str, Any]:
    return {
        "total_pj": energy.total_pj,
        "dynamic_pj": dict(energy.dynamic_pj),
        "leakage_pj": dict(energy.leakage_pj),
        "assumed": sorted(energy.assumed),
    }


def _layer(layer: LayerResult) -> dict[str, Any]:
    counts = layer.counts
    plain: dict[str, Any] = {}
    for name, value in vars(counts).items():
        if name == "actions":
            continue
        plain[name] = dict(value) if name.endswith("_causes") else list(value) if isinstance(value, tuple) else value
    actions = [
        {
            "kind": action.kind.value,
            "component": action.component,
            "bits": action.bits,
            "other_bits": action.other_bits,
            "stimulus": action.stimulus.value if action.stimulus else None,
            "count": count,
        }
        for action, count in counts.actions.counts.items()
    ]
    return {
        **vars(layer.shape),
        "counts": plain,
        "actions": actions,
        "energy": _energy(layer.energy),
        "sparsity_outputs": layer.sparsity_outputs,
        "b_avg_bits": layer.b_avg,
        "utilisation": layer.utilisation,
        "update_utilisation": layer.update_utilisation,
    }
