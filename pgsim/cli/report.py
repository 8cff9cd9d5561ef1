"""A run as tables of plain text, at most 120 columns wide for layer names of ordinary length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, cast

from pgsim.cli.table import aligned
from pgsim.results.compare import compare
from pgsim.results.frame import Row, rows

if TYPE_CHECKING:
    from pgsim.results.run import RunResult

WIDTH = 120
NAME_WIDTH = 20
SHA = 12  # digits of a digest; files have all 64
TOTALS = {"network": "all layers", "gated": "gated", "not_gated": "not gated"}
ENERGY_UNITS = ((1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))  # of pJ
KIB = 8 * 1024  # bits
PARTS = {
    "arrays": ("array", "update_array"),
    "SRAM": ("activation", "activation_lsb", "weight", "output"),
    "other\nlogic": (),
    "off\nchip": ("off_chip",),
}
"""Column -> components whose dynamic energy it adds up; other logic takes those that no column names."""
SHORT = {
    "activation": "act.",
    "activation_lsb": "act.\nLSB",
    "comparator": "compare",
    "crossbar": "cross-\nbar",
    "update_array": "LSB\narray",
    "weight_register": "weight\nregs",
}


def title(result: RunResult) -> str:
    """Return one line: which network, how many images, on what."""
    p, images = result.provenance, result.images
    network = plain(p.trace) or "a trace without a name"
    machine = f"{plain(p.accelerator)} ({result.organisation}, {result.clock_mhz:g} MHz)"
    together = f" (figures are for all {images} together)" if images > 1 else ""
    return f"{network}, {images} image{'s' * (images > 1)}{together}, on {machine}"


def layer_tables(result: RunResult) -> str:
    """Return the tables of all layers, one after the other: work, arrays, energy, traffic, mapping."""
    table = rows(result)
    parts = [_work(table), _pe_array(table), _lsb_array(table), _energy(table), _traffic(table), _mapping(table)]
    return "\n\n".join(part for part in parts if part)


def summary(result: RunResult, details: bool = True) -> str:
    """Return the network's totals, the gated layers' apart; with `details` what is assumed and provenance."""
    table = rows(result)
    network = _kind(table, "network")
    area = sum(result.area_um2.values())
    parts = ", ".join(f"{plain(name)} {value / 1e6:.3f}" for name, value in result.area_um2.items())
    lines = [
        f"{_number(network['images_per_second'], 1)} images/s, {_number(network['time_us'], 1, result.images)} us and "
        f"{_amount(_float(network['energy_per_image_pj']))} an image, {_number(network['average_power_mw'], 1)} mW on "
        f"average, {_number(result.peak_layer_power_mw, 1)} mW in the hungriest layer, "
        f"energy-delay product {_float(network['energy_delay_pj_s']) * 1e-12:.4g} J s an image",
        f"area {area / 1e6:.3f} mm2 ({parts}), {result.multiplier_bits:,} multiplier bits",
    ]
    text = _network(table) + "\n\n" + "\n".join(fill(line, WIDTH, subsequent_indent="  ") for line in lines)
    if result.beside:
        text += f"\n\n{_by_energy_table([result, *result.beside])}"
    return f"{text}\n\n{assumptions(result)}\n\n{provenance(result)}" if details else text


def _by_energy_table(priced: Sequence[RunResult]) -> str:
    """Return a table of the same counts at the prices of several energy tables, ratios to the first."""
    lines, whole = [], priced[0].totals().energy.total_pj
    for one in priced:
        energy, area = one.totals().energy, sum(one.area_um2.values())
        parts = dict.fromkeys(PARTS, 0.0)
        for component, value in energy.dynamic_pj.items():
            parts[next((part for part, members in PARTS.items() if component in members), "other\nlogic")] += value
        amounts = [energy.total_pj, *parts.values(), sum(energy.leakage_pj.values())]
        figures = [f"{amount * 1e-6 / one.images:,.2f}" for amount in amounts]
        ratio = f"{energy.total_pj / whole:.3f}"
        lines.append((plain(one.provenance.energy_table), figures[0], ratio, *figures[1:], f"{area / 1e6:.3f}"))
    header = ("energy table", "uJ an\nimage", "ratio", *PARTS, "leakage", "mm2")
    return f"The same counts at other prices, uJ an image\n{aligned(header, lines, header[:1])}"


def assumptions(result: RunResult) -> str:
    """Return what no source states, a line or more each."""
    if not result.assumed:
        return "Assumed: nothing"
    items = (fill(plain(words), WIDTH, initial_indent="  - ", subsequent_indent="    ") for words in result.assumed)
    return "\n".join(["Assumed", *items])


def audit_lines(result: RunResult) -> str:
    """Return one line where all checks hold, else a line for each that does not."""
    failed = [check for check in result.audit if not check.holds]
    if not failed:
        rules = len({check.name for check in result.audit})
        return f"audit: {rules} checks hold ({len(result.audit):,} comparisons in {len(result.layers)} layers)"
    lines = [f"audit: {len(failed):,} of {len(result.audit):,} comparisons do not hold"]
    for check in failed:
        where = f"{plain(check.layer)}: " if check.layer else ""
        lines.append(f"  {where}{check.name}: must be {_exact(check.expected)}, not {_exact(check.found)}")
    return "\n".join(lines)


def provenance(result: RunResult) -> str:
    """Return what the integers come from: version, and the first digits of three digests."""
    p = result.provenance
    words = (
        f"pgsim {p.version}, trace {p.trace_sha256[:SHA]}, {plain(p.accelerator)} {p.accelerator_sha256[:SHA]}, "
        f"energy table {plain(p.energy_table)} {p.energy_table_sha256[:SHA]}"
    )
    return fill(words, WIDTH, subsequent_indent="  ")


def comparison(results: Sequence[RunResult]) -> str:
    """Return a table of several accelerators on one trace, ratios to the first; again at the prices of each energy
    table that stands beside the first's own for all of them."""
    parts = [_comparison(results)]
    names = [one.provenance.energy_table for one in results[0].beside]
    for name in names:
        priced = [one for result in results for one in result.beside if one.provenance.energy_table == name]
        if len(priced) == len(results):
            parts.append(_comparison(priced))
    return "\n\n".join(parts)


def _comparison(results: Sequence[RunResult]) -> str:
    header = (
        "accelerator", "organisation", "MHz", "cycles", "us an\nimage", "speedup", "gated\nspeedup", "uJ an\nimage",
        "energy\nratio", "EDP\nratio", "multiplier\nbits", "speedup\n/ bits", "mm2", "speedup\n/ area",
    )  # fmt: skip
    first = results[0]
    lines = []
    for one in results:
        by_layers = {part.layers: part for part in compare([one], first)}
        network, gated = by_layers["network"], by_layers.get("gated")
        lines.append(
            (
                shorten(one.provenance.accelerator),
                one.organisation,
                f"{one.clock_mhz:g}",
                f"{one.totals().cycles:,}",
                f"{one.seconds * 1e6 / one.images:,.1f}",
                f"{network.speedup:.3f}",
                f"{gated.speedup:.3f}" if gated else "-",
                f"{one.totals().energy.total_pj * 1e-6 / one.images:,.2f}",
                f"{network.energy_ratio:.3f}",
                f"{network.energy_ratio / network.speedup:.3f}",
                f"{one.multiplier_bits:,}",
                f"{network.speedup_at_equal_multiplier_bits:.3f}",
                f"{_area(one) / 1e6:.3f}",
                f"{network.speedup_at_equal_area:.3f}",
            )
        )
    title = f"Comparison, ratios to {plain(first.provenance.accelerator)}; gated speedup: of the gated layers alone"
    tables = sorted({one.provenance.energy_table for one in results})
    title += f"; energy table {', '.join(map(plain, tables))}"
    return f"{fill(title, WIDTH, subsequent_indent='  ')}\n{aligned(header, lines, header[:2])}"


def plain(text: str) -> str:
    """Return text from a file so that it cannot move the cursor or colour the screen."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str) -> str:
    """Return a name in at most NAME_WIDTH characters, its middle left out."""
    text = plain(text)
    half = (NAME_WIDTH - 2) // 2
    return text if len(text) <= NAME_WIDTH else f"{text[:half]}..{text[-half:]}"


Cell = tuple[str, Callable[[Row], str]]  # heading, and the text of a row


def _table(title: str, table: Iterable[Row], cells: Sequence[Cell], left: Sequence[str] = ()) -> str:
    """Layers first, then the totals under a rule."""
    header = ("#", "layer", *(heading for heading, _ in cells))
    layers, totals = [], []
    for row in table:
        if row["row"] != "layer" and not row["layers"]:
            continue  # a total of no layers: its means are None
        texts = [text(row) for _, text in cells]
        if row["row"] == "layer":
            layers.append((str(row["index"]), shorten(str(row["layer"])), *texts))
        else:
            totals.append(("", TOTALS[str(row["row"])], *texts))
    text = aligned(header, [*layers, *totals], ("layer", *left)).split("\n")
    body = len(text) - len(totals)
    return "\n".join([title, *text[:body], "-" * max(map(len, text)), *text[body:]])


def _work(table: list[Row]) -> str:
    def bits(row: Row) -> str:
        if row["row"] != "layer":
            return ""
        predicted = f"/{row['pred_bits']}" if row["gated"] else ""
        return f"{row['act_bits']}{predicted} x {row['weight_bits']}"

    cells: list[Cell] = [
        ("type", lambda row: str(row["kind"] or "")),
        ("shape", lambda row: str(row["shape"] or "")),
        ("bits", bits),
        ("MACs", lambda row: f"{row['macs_issued']:,}"),
        ("MACs\nupdated", lambda row: f"{row['macs_updated']:,}" if row["macs_gated"] else "-"),
        ("Sp", lambda row: _percent(row["sparsity_outputs"])),
        ("B_avg", lambda row: f"{row['b_avg_macs_bits']:.3f}"),
    ]
    return _table("Work (bits: activation/predicted x weight)", table, cells, ("type", "shape", "bits"))


def _pe_array(table: list[Row]) -> str:
    network = _kind(table, "network")
    cells: list[Cell] = [
        ("cycles", lambda row: f"{row['cycles']:,}"),
        ("of all", lambda row: _share(row["cycles"], network["cycles"])),
        *_causes(table, "array", lambda row: row["cycles"]),
        ("lanes\nused", lambda row: _percent(row["utilisation"])),
    ]
    if network["update_lane_cycles"] and not _groups(table):
        cells.append(("LSB lanes\nused", lambda row: _percent(row["update_utilisation"])))
    return _table("PE array, % of the layer's cycles", table, cells)


def _lsb_array(table: list[Row]) -> str:
    if not _groups(table):
        return ""

    def whole(row: Row) -> int:
        return sum(_int(row[name]) for name in row if _is_cause(name, "group"))

    cells: list[Cell] = [
        *_causes(table, "group", whole),
        ("lanes\nused", lambda row: _percent(row["update_utilisation"])),
        ("queue\npeak", lambda row: str(row["queue_peak_entries"])),
    ]
    used = [row for row in table if row["row"] != "layer" or row.get("group_not_gated_cycles") != whole(row)]
    return _table("LSB array in the layers that use it, % of its groups' cycles; peak entries of one FIFO", used, cells)


def _is_cause(name: str, array: str) -> bool:
    return name.startswith(f"{array}_") and name.endswith("_cycles")


def _groups(table: list[Row]) -> bool:
    return any(_is_cause(name, "group") for name in table[0])


def _causes(table: list[Row], array: str, whole: Callable[[Row], object]) -> list[Cell]:
    """One column for each cause that is not 0 in all layers."""
    network = _kind(table, "network")

    def cell(name: str) -> Callable[[Row], str]:
        return lambda row: _share(row[name], whole(row))

    names = [name for name in network if _is_cause(name, array) and network[name]]
    return [(name.removeprefix(f"{array}_").removesuffix("_cycles").replace("_", "\n"), cell(name)) for name in names]


def _energy(table: list[Row]) -> str:
    network = _kind(table, "network")
    unit, word = _unit(_float(network["energy_pj"]))
    digits = 2 if _float(network["energy_pj"]) >= 100 * unit else 3

    def amount(pick: Callable[[Row], float]) -> Callable[[Row], str]:
        return lambda row: f"{pick(row) / unit:,.{digits}f}" if pick(row) else "-"

    def sum_of(names: Sequence[str]) -> Callable[[Row], str]:
        return amount(lambda row: sum(_float(row[name]) for name in names))

    def text(apart: Sequence[str], together: Sequence[str]) -> str:
        cells: list[Cell] = [
            ("all", sum_of(["energy_pj"])),
            ("of all", lambda row: _share(row["energy_pj"], network["energy_pj"])),
            ("leakage", sum_of([name for name in network if name.startswith("leakage_")])),
            *((_heading(name[7:-3]), sum_of([name])) for name in apart),
        ]
        title = f"Energy, {word}: leakage of all parts, and each component's dynamic energy"
        if together:
            cells.append(("others", sum_of(together)))
            title += f" (others: {', '.join(_heading(name[7:-3]).replace(chr(10), ' ') for name in together)})"
        return _table(fill(title, WIDTH, subsequent_indent="  "), table, cells)

    names = [name for name in network if name.startswith("energy_") and name.endswith("_pj") and name[7:-3]]
    apart = [name for name in names if _is_component(name) and network[name]]
    together: list[str] = []
    while max(map(len, text(apart, together).split("\n"))) > WIDTH and len(apart) > 1:
        smallest = min(apart, key=lambda name: _float(network[name]))
        apart.remove(smallest)
        together.insert(0, smallest)
    return text(apart, together)


def _heading(component: str) -> str:
    return SHORT.get(component) or component.replace("_", "\n")


def _is_component(name: str) -> bool:
    from pgsim.results.frame import COLUMNS

    return name not in {column.name for column in COLUMNS}


def _traffic(table: list[Row]) -> str:
    network = _kind(table, "network")

    def field(name: str) -> Callable[[Row], str]:
        return lambda row: f"{_int(row[name]) / KIB:,.1f}" if row[name] else "-"

    cells: list[Cell] = []
    for place in ("off_chip", "activation", "activation_lsb", "weight", "output"):
        for way in ("read", "write"):
            name = f"{place}_{way}_bits"
            if network.get(name):
                cells.append((f"{_heading(place)}\n{way}", field(name)))
    return _table("Traffic, KiB (1024 bytes)", table, cells)


def _mapping(table: list[Row]) -> str:
    cells: list[Cell] = [(name, lambda row, name=name: str(row[name])) for name in ("passes", "tiling", "placement")]  # type: ignore[misc]
    layers = [row for row in table if row["row"] == "layer"]
    header = ("#", "layer", "cycles\na step", "tiling", "placement")
    lines = [(str(row["index"]), shorten(str(row["layer"])), *(text(row) for _, text in cells)) for row in layers]
    return f"Mapping\n{aligned(header, lines, ('layer', 'tiling', 'placement'))}"


def _network(table: list[Row]) -> str:
    kinds = [kind for kind in TOTALS if _kind(table, kind)["layers"]]
    chosen, network = [_kind(table, kind) for kind in kinds], _kind(table, "network")
    unit, word = _unit(_float(network["energy_pj"]))

    def off_chip(row: Row) -> str:
        return f"{(_int(row['off_chip_read_bits']) + _int(row['off_chip_write_bits'])) / KIB:,.1f}"

    lines: list[Cell] = [
        ("layers", lambda row: str(row["layers"])),
        ("MACs", lambda row: f"{row['macs_issued']:,}"),
        ("  of all", lambda row: _share(row["macs_issued"], network["macs_issued"])),
        ("  useful (not padding)", lambda row: f"{row['macs_useful']:,}"),
        ("  updated", lambda row: f"{row['macs_updated']:,}" if row["macs_gated"] else "-"),
        ("Sp by outputs", lambda row: _percent(row["sparsity_outputs"], 2)),
        ("Sp by MACs", lambda row: _percent(row["sparsity_macs"], 2)),
        ("B_avg by outputs", lambda row: f"{row['b_avg_outputs_bits']:.3f}"),
        ("B_avg by MACs", lambda row: f"{row['b_avg_macs_bits']:.3f}"),
        ("cycles", lambda row: f"{row['cycles']:,}"),
        ("  of all", lambda row: _share(row["cycles"], network["cycles"])),
        ("PE array lanes used", lambda row: _percent(row["utilisation"])),
        ("LSB lanes used", lambda row: _percent(row["update_utilisation"])),
        (f"energy, {word}", lambda row: f"{_float(row['energy_pj']) / unit:,.3f}"),
        ("  of all", lambda row: _share(row["energy_pj"], network["energy_pj"])),
        ("off chip, KiB", off_chip),
    ]
    header = ("", *(TOTALS[kind] for kind in kinds))
    shown = [(heading, *(text(row) for row in chosen)) for heading, text in lines]
    return "Network\n" + aligned(header, [line for line in shown if set(line[1:]) != {"-"}], ("",))


def _kind(table: list[Row], kind: str) -> Row:
    return next(row for row in table if row["row"] == kind)


def _percent(value: object, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * _float(value):.{digits}f} %"


def _share(part: object, whole: object) -> str:
    return f"{100 * _float(part) / _float(whole):.1f}" if part and whole else "-"


def _number(value: object, digits: int, over: int = 1) -> str:
    return f"{_float(value) / over:,.{digits}f}"


def _unit(picojoules: float, least: float = 10) -> tuple[float, str]:
    """The largest unit of which there are `least`."""
    return next((unit for unit in ENERGY_UNITS if picojoules >= least * unit[0]), ENERGY_UNITS[-1])


def _amount(picojoules: float) -> str:
    unit, word = _unit(picojoules, 1)
    return f"{picojoules / unit:,.2f} {word}"


def _exact(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else repr(value)


def _area(result: RunResult) -> float:
    return sum(result.area_um2.values())


def _int(value: object) -> int:
    return cast(int, value)


def _float(value: object) -> float:
    return cast(float, value)
