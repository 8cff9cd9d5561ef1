"""Time pgsim and print a table, goals beside what is measured. Writes nothing unless --json is given.

    python benchmarks/run.py [--trace TRACE] [--hw HW] [--repeats N] [--json OUT]

Every figure is the smallest of several runs. CPU seconds (user + system) hardly depend on what else the machine does,
wall seconds do: the load average is printed, and times are also given over that of a bare `import numba`, taken in the
same run. Each measurement is a process of its own (benchmarks/measure.py); this one stays small, because a child's peak
memory starts at its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

HERE = Path(__file__).resolve().parent
PGSIM = [sys.executable, "-m", "pgsim"]
MEASURE = [sys.executable, str(HERE / "measure.py")]
GROWTH = (1, 8, 64)  # images


@dataclass(frozen=True)
class Taken:
    """What a process took: wall and CPU seconds, peak memory in MB (10^6 bytes)."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def take(command: Sequence[str], environment: dict[str, str] | None = None) -> Taken:
    """Run a command to its end; raises RuntimeError where it fails."""
    start = perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        complaint = child.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(child.pid, 0)
        wall = perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}: {complaint.strip()}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    return Taken(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def best(takes: Sequence[Taken]) -> Taken:
    """Return the smallest of each quantity."""
    return Taken(*(min(getattr(one, name) for one in takes) for name in ("wall_s", "cpu_s", "peak_mb")))


def ask(*words: str) -> Any:
    """Return what benchmarks/measure.py prints as JSON."""
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}  # as `pgsim run` has it
    done = subprocess.run([*MEASURE, *words], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"measure.py {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Line:
    """A line of the table; `goal` is "" where there is none, `met` None where nothing can be said."""

    what: str
    measured: str
    goal: str = ""
    met: bool | None = None


def measure(trace: str, hw: str, repeats: int, folder: Path) -> tuple[dict[str, Any], list[tuple[str, list[Line]]]]:
    """Return all figures, and the same as titled lines of the table."""
    runs = range(repeats)
    command = [*PGSIM, "run", trace, "--hw", hw]
    take(command)  # compiles and fills the file cache
    floor = best([take([sys.executable, "-c", "import numba"]) for _ in runs])
    warm = best([take(command) for _ in runs])
    cold = [take(command, {**os.environ, "NUMBA_CACHE_DIR": str(folder / f"cache{n}")}) for n in range(2)]
    stages = [ask("stages", trace, hw) for _ in runs]
    shares = {name: min(one[name] for one in stages) for name in stages[0]}
    figures: dict[str, Any] = {
        "floor": asdict(floor),
        "warm": asdict(warm),
        "cold": asdict(best(cold)),
        "stages_cpu_s": shares,
    }
    tables = [
        (
            f"pgsim run {Path(trace).name} --hw {hw}, verification on",
            [
                Line("warm, wall s", f"{warm.wall_s:.2f}", "< 2 (quiet machine)", warm.wall_s < 2),
                Line("warm, CPU s", f"{warm.cpu_s:.2f}", "< 2", warm.cpu_s < 2),
                Line("warm, over `import numba`, CPU", f"{warm.cpu_s / floor.cpu_s:.2f}"),
                Line("first run, empty cache, wall s", f"{best(cold).wall_s:.1f}", "< 20", best(cold).wall_s < 20),
                Line("first run, empty cache, CPU s", f"{best(cold).cpu_s:.1f}"),
                Line("peak memory, MB", f"{warm.peak_mb:.0f}", "< 600", warm.peak_mb < 600),
            ],
        ),
        (
            "Where a warm run's CPU time goes",
            [Line(name, f"{value:.3f} s, {value / sum(shares.values()):.0%}") for name, value in shares.items()],
        ),
    ]
    parts = [_growth(trace, hw, folder, min(repeats, 3)), _macs(hw), _engines(trace)]
    if find_spec("torch"):
        parts += [_backward(), _layers()]
    for part in parts:
        figures |= part[0]
        tables.append(part[1])
    return figures, tables


def _growth(trace: str, hw: str, folder: Path, repeats: int) -> tuple[dict[str, Any], tuple[str, list[Line]]]:
    found = {}
    for images in GROWTH:
        path = str(folder / f"images{images}.npz")
        ask("tile", trace, str(images), path)
        found[images] = best([take([*PGSIM, "run", path, "--hw", hw]) for _ in range(repeats)])
    few, some, many = (found[images] for images in GROWTH)
    early, late = (some.cpu_s - few.cpu_s) / 7, (many.cpu_s - some.cpu_s) / 56
    memory = (some.peak_mb - few.peak_mb) / 7, (many.peak_mb - some.peak_mb) / 56
    lines = [
        Line(f"{images} images", f"{one.wall_s:.2f} s wall, {one.cpu_s:.2f} s CPU, {one.peak_mb:.0f} MB")
        for images, one in found.items()
    ]
    lines += [
        Line(
            "CPU s an image, 1 to 8 and 8 to 64",
            f"{early:.3f}, {late:.3f}",
            "linear: late < 1.5 early",
            late < 1.5 * early,
        ),
        Line("MB an image, 1 to 8 and 8 to 64", f"{memory[0]:.1f}, {memory[1]:.1f}"),
        Line("64 images, peak memory, MB", f"{many.peak_mb:.0f}", "< 1500", many.peak_mb < 1500),
    ]
    return {"growth": {str(images): asdict(one) for images, one in found.items()}}, ("Growth with images", lines)


def _macs(hw: str) -> tuple[dict[str, Any], tuple[str, list[Line]]]:
    found = ask("macs", hw)
    rates = [one["cpu_s"] / one["macs"] * 1e9 for one in found]
    lines = [
        Line(
            f"{one['channels']} channels, {one['macs'] / 1e6:,.1f} M MACs",
            f"{one['cpu_s'] * 1e3:.1f} ms, {rate:.2f} ns a MAC",
        )
        for one, rate in zip(found, rates, strict=True)
    ]
    most = max(rates[1:])
    lines.append(
        Line("worst after the first, over the first", f"{most / rates[0]:.2f}", "linear: < 1.5", most < 1.5 * rates[0])
    )
    return {"macs": found}, ("Growth with MACs: one gated 3x3 layer of 32 x 32 pixels", lines)


def _engines(trace: str) -> tuple[dict[str, Any], tuple[str, list[Line]]]:
    found = ask("engines", trace)
    lines = []
    for one in found:
        rate = one["cycles"] / one["cpu_s"] / 1e6
        fast = one["engine"] == "fast"
        name = f"{one['engine']}, {one['accelerator']}"
        lines.append(
            Line(
                name,
                f"{rate:,.2f} M/s" if fast else f"{rate * 1e3:,.1f} k/s",
                "> 5 M/s" * fast,
                rate > 5 if fast else None,
            )
        )
    return {"engines": found}, ("Simulated cycles a CPU second, values known", lines)


def _backward() -> tuple[dict[str, Any], tuple[str, list[Line]]]:
    found = ask("backward")
    lines = [
        Line(
            f"{one['channels']} channels, Sp {one['sparsity']:.0%}",
            f"{one['masked_cpu_s'] / one['dense_cpu_s']:.2f}, {one['masked_cpu_s'] / one['all_cpu_s']:.2f}",
        )
        for one in found
    ]
    title = "Masked weight gradient of the update phase, over torch's dense one and over itself at Sp 0"
    return {"backward": found}, (title, lines)


def _layers() -> tuple[dict[str, Any], tuple[str, list[Line]]]:
    found = ask("layers")
    lines = [
        Line(
            f"{one['channels']} channels, {one['pixels']} pixels square, kernel {one['kernel']:.0f}",
            ", ".join(
                f"{one[name] / one['float_cpu_s']:.2f}" for name in ("dense_cpu_s", "gated_cpu_s", "gated_torch_cpu_s")
            ),
        )
        for one in found
    ]
    title = "A layer's training step over torch's float one: dense, gated, gated without compiled kernels"
    return {"layers": found}, (title, lines)


def show(tables: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """Return the tables as text, columns aligned over all of them."""
    lines = [line for _, some in tables for line in some]
    widths = [max(len(line.what) for line in lines), max(len(line.measured) for line in lines)]
    parts = []
    for title, some in tables:
        rows = [
            f"  {line.what:<{widths[0]}}  {line.measured:>{widths[1]}}  {line.goal:<24}  {_word(line.met)}".rstrip()
            for line in some
        ]
        parts.append("\n".join([title, *rows]))
    return "\n\n".join(parts)


def _word(met: bool | None) -> str:
    return {None: "", True: "met", False: "NOT MET"}[met]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write what is asked for; return 0 whether or not goals are met."""
    parser = argparse.ArgumentParser(description="Time pgsim; goals beside what is measured.")
    parser.add_argument("--trace", default=str(HERE.parent / "traces" / "resnet20_3-2_release.npz"))
    parser.add_argument("--hw", default="predictivenet")
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of each measurement, the smallest counts (default: 5)"
    )
    parser.add_argument("--json", metavar="OUT", help="write all figures to OUT")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        load = os.getloadavg()[0]
        figures, tables = measure(args.trace, args.hw, args.repeats, Path(folder))
    cores = os.cpu_count() or 1
    state = "quiet" if load < 0.3 else "measured beside a load"
    print(f"{cores} cores, load average {load:.1f} before the first run ({state}); smallest of {args.repeats} runs\n")
    print(show(tables))
    if args.json:
        text = json.dumps({"cores": cores, "load": load, "repeats": args.repeats, **figures}, indent=1)
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
