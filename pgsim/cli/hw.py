"""List, show and check hardware files and energy tables."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pgsim.errors import InputError

if TYPE_CHECKING:
    from pgsim.hw.accelerator import Accelerator
    from pgsim.io.hardware import LoadedAccelerator
    from pgsim.model.lanes import LaneWidths


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="one line for each shipped hardware file")
    show = actions.add_parser("show", help="check a hardware file and show what it resolves to")
    show.add_argument("name", metavar="NAME", help="hardware file, or the name of a shipped one")
    form = show.add_mutually_exclusive_group()  # what --yaml prints leaves to the trace what the file does
    form.add_argument("--bits", metavar="B/H", help="resolve widths that the file leaves to the trace, as in 3/2")
    form.add_argument("--yaml", action="store_true", help="print a hardware file with every default written out")
    prices = actions.add_parser("prices", help="check an energy table and list its figures with their sources")
    prices.add_argument("name", metavar="NAME", help="energy table, or the name of a shipped one")
    schema = actions.add_parser("schema", help="print the JSON Schema of hardware files")
    schema.add_argument("--energy", action="store_true", help="of energy tables instead")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; return 0. Raises InputError."""
    return {"list": _list, "show": _show, "prices": _prices, "schema": _schema}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from pgsim.cli.table import aligned
    from pgsim.io.hardware import load_accelerator, shipped_accelerators

    rows = []
    for name in shipped_accelerators():
        accelerator = load_accelerator(name)
        rows.append((name, accelerator.organisation.value, _shape(accelerator), accelerator.description))
    header = ("name", "organisation", "lanes", "description")
    print(aligned(header, rows, left=header))
    return 0


def _show(args: argparse.Namespace) -> int:
    from pgsim.cli.hardware_file import naming_file
    from pgsim.io.hardware import accelerator_yaml, load_with_defaults

    loaded = load_with_defaults(args.name)
    bits = read_bits(args.bits) if args.bits is not None else None
    if args.yaml:
        print(accelerator_yaml(loaded.accelerator), end="")
        return 0
    with naming_file(args.name, loaded.accelerator):
        derived = _derived(loaded.accelerator, bits)
    for line in [*_settings(loaded), "", *derived]:
        print(line)
    if loaded.accelerator.assumed:
        print("\nassumed")
        for line in loaded.accelerator.assumed:
            print(f"  - {line}")
    return 0


def _schema(args: argparse.Namespace) -> int:
    from pgsim.io.energy import energy_schema
    from pgsim.io.hardware import hardware_schema

    print(json.dumps(energy_schema() if args.energy else hardware_schema(), indent=2))
    return 0


def _prices(args: argparse.Namespace) -> int:
    from pgsim.cli.table import aligned
    from pgsim.io.energy import load_energy_table, table_rows

    table = load_energy_table(args.name)
    print(f"{table.name}: {table.node_nm} nm, {table.voltage_v} V, sha256 {table.sha256[:12]}\n")
    rows, sources = [], list[str]()
    for what, price in table_rows(table):
        if price.source not in sources:
            sources.append(price.source)
        origin, doubt = f"[{sources.index(price.source) + 1}]", "assumed" if price.assumed else ""
        rows.append((what, f"{price.value:.5g}", price.unit, origin, doubt, price.note))
    header = ("figure", "value", "unit", "source", "", "derivation, reason")
    print(aligned(header, rows, left=("figure", "unit", "", "derivation, reason")))
    print()
    for number, source in enumerate(sources, 1):
        print(f"[{number}] {source}")
    return 0


def read_bits(text: str) -> tuple[int, int]:
    """Return B and h of an option's text B/H. Raises InputError."""
    act, _, pred = text.partition("/")
    if not (act.isdecimal() and pred.isdecimal() and 0 < int(pred) < int(act) <= 16):
        raise InputError(f"--bits must be B/H with 0 < H < B <= 16, as in 3/2, not {text!r}")
    return int(act), int(pred)


def _shape(accelerator: Accelerator) -> str:
    array, update = accelerator.array, accelerator.update
    text = f"{array.rows} x {array.columns} x {array.multipliers}"
    return f"{text} + {update.groups} x {update.lanes} x {array.multipliers}" if update else text


def _settings(loaded: LoadedAccelerator) -> list[str]:
    """Return every key of the file with its value; a default says that it is one."""
    from pgsim.io.hardware import file_values

    lines: list[tuple[str, str]] = []

    def walk(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            path = prefix + key
            if isinstance(value, dict):
                walk(value, f"{path}.")
            elif path not in ("pgsim_hw", "assumed"):
                text = ("true" if value else "false") if isinstance(value, bool) else str(value)
                lines.append((path, text + ("  (default)" if path in loaded.defaulted else "")))

    walk(file_values(loaded.accelerator), "")
    lines.append(("sha256", loaded.accelerator.sha256))
    width = max(len(path) for path, _ in lines)
    return [f"{path:<{width}}  {text}" for path, text in lines]


def _derived(accelerator: Accelerator, bits: tuple[int, int] | None) -> list[str]:
    """Return lanes, peak MACs and, where the widths are known, multiplier bits and area."""
    from pgsim.io.energy import load_prices
    from pgsim.model.cost import area
    from pgsim.model.lanes import multiplier_bits

    array, update = accelerator.array, accelerator.update
    lsb = update.groups * update.lanes * array.multipliers if update else 0
    parts = f" ({array.lanes:,} MSB + {lsb:,} LSB)" if lsb else ""
    lines = [f"lanes            {array.lanes + lsb:,}{parts}, as many MACs a cycle at peak"]
    table = load_prices(accelerator)
    if bits is None:
        bits = (2, 1)
        if widths_for(accelerator, 2, 1) != widths_for(accelerator, 16, 9):
            hint = "depend on the trace; --bits B/H (as in 3/2) resolves them"
            return [*lines, f"multiplier bits  {hint}", f"area             {hint.replace('depend', 'depends')}"]
    widths = widths_for(accelerator, *bits)
    shown = f"{widths.msb} + {widths.lsb}" if widths.lsb else str(widths.msb)
    areas = area(accelerator, widths, table)
    total = sum(price.value for price in areas.values())
    lines += [
        f"lane operands    {shown} x {array.weight_bits} bits",
        f"multiplier bits  {multiplier_bits(accelerator, widths):,}",
        f"area             {total / 1e6:.3f} mm2 without control and wiring; in a run `post` is what its trace needs",
    ]
    width = max(map(len, areas))
    for name, price in areas.items():
        mark = "  (assumed)" if price.assumed else ""
        lines.append(f"  {name:<{width}}  {price.value / 1e6:.4f} mm2{mark}")
    return lines


def widths_for(accelerator: Accelerator, act_bits: int, pred_bits: int) -> LaneWidths:
    """Return the lane widths for a trace whose one layer has B = act_bits and h = pred_bits."""
    import numpy as np

    from pgsim.arith.formats import Encoding, NumberFormat
    from pgsim.model.lanes import resolve_widths
    from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
    from pgsim.workload.trace import InMemory, Trace

    layer = Layer(
        name="any",
        geometry=Geometry(LayerKind.LINEAR, in_channels=1, out_channels=1),
        act=NumberFormat(Encoding.UNSIGNED, act_bits),
        weight_format=NumberFormat(Encoding.TWOS_COMPLEMENT, 8),
        weight=np.zeros((1, 1, 1, 1), np.int16),
        act_scale=1.0,
        weight_scale=np.ones(1),
        gate=Gate(pred_bits, np.zeros(1, np.int64)),
    )
    return resolve_widths(accelerator, Trace(layers=(layer,), images=1, source=InMemory(())))
