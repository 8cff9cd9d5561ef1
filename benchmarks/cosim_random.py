"""Random machines, compiled, each over many random layers: RTL against an engine, every bit and cycle.

    python benchmarks/cosim_random.py [--machines M] [--layers N] [--seed S] [--engine fast|clocked] [--organisation O]

Prints a line a machine and stops at the first difference, exit code 1. Run it from the root of the repository: it takes
the strategies of the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypothesis import HealthCheck, Phase, given, seed, settings

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.rtl.bench import Bench
from tests.model.random_machines import Case, cases
from tests.model.test_engines import prepare
from tests.rtl.machine_cases import CAPACITY, compare_prepared


def draw(organisation: Organisation | None, count: int, number: int) -> list[Case]:
    """Return `count` cases, the same for the same number."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases(organisation))
    def gather(case: Case) -> None:
        found.append(case)

    gather()
    return found


def draw_machines(organisation: Organisation | None, count: int, number: int) -> list[Accelerator]:
    """Return `count` machines, no two alike: hypothesis draws some again, so twice as many are drawn."""
    found: dict[str, Accelerator] = {}
    for place, one in enumerate(draw(organisation, 2 * count + 10, number)):
        array = one.accelerator.array
        accelerator = replace(one.accelerator, array=replace(array, act_bits=array.act_bits or 1 + place % 4))
        found.setdefault(accelerator.sha256, accelerator)
    return list(found.values())[:count]


def run_machine(accelerator: Accelerator, layers: list[Case], engine: str) -> tuple[int, str | None]:
    """Compile a machine and run layers on it; return how many ran, and the first difference."""
    ran, bench = 0, None
    for layer in layers:
        case = replace(layer, accelerator=accelerator)
        try:
            job, operands, outputs = prepare(case)
        except InputError:
            continue  # a buffer too small for any tile
        bench = bench or Bench(accelerator, operands.widths, CAPACITY, optimise=1)
        comparison = compare_prepared(job, operands, outputs, engine=engine, bench=bench)
        ran += 1
        if not comparison.equal:
            return ran, f"{comparison.first}\n{case.layer.geometry}\n{accelerator}"
    if bench is not None:
        bench.close()
    return ran, None


def main() -> int:
    """Run; return 0 where nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("fast", "clocked"), default="fast")
    parser.add_argument("--organisation", type=Organisation, help=", ".join(o.value for o in Organisation))
    args = parser.parse_args()
    total = 0
    machines = draw_machines(args.organisation, args.machines, args.seed)
    for number, accelerator in enumerate(machines):
        start = time.perf_counter()
        layers = draw(accelerator.organisation, args.layers, args.seed * 100_000 + number)
        ran, difference = run_machine(accelerator, layers, args.engine)
        total += ran
        seconds = time.perf_counter() - start
        print(f"{number + 1:4}  {accelerator.organisation.value:11}  {ran:4} layers  {seconds:5.1f} s", flush=True)
        if difference is not None:
            print(difference)
            return 1
    print(f"{len(machines)} different machines, {total} layers: 0 differing bits, 0 differing events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
