"""docs/hardware.md says what the loader's table of keys says, and its example loads."""

import re
from collections.abc import Iterator
from pathlib import Path

from pgsim.io.energy import load_prices
from pgsim.io.energy_keys import ENERGY
from pgsim.io.hardware import load_accelerator
from pgsim.io.hardware_keys import HARDWARE
from pgsim.io.keys import REQUIRED, Choice, Flag, Kind, Mapping, Number, Quantity, Texts, Version, join_or

DOCS = Path(__file__).resolve().parents[2] / "docs"


def value_of(kind: Kind) -> str:
    match kind:
        case Quantity():
            factors = dict(kind.units)
            return f"{kind.noun}, {join_or(sorted(factors, key=factors.__getitem__))}"
        case Number():
            return str(kind.allowed) + (f", or {kind.word}" if kind.word else "")
        case Choice():
            return join_or([member.value for member in kind.members])
        case Flag():
            return "true or false"
        case Texts():
            return "a list of lines of text"
        case Version():
            return str(kind.number)
        case _:
            return "text"


def rows(table: Mapping, prefix: str = "") -> Iterator[str]:
    for key in table.keys:
        path = prefix + key.name
        if isinstance(key.kind, Mapping):
            yield f"| `{path}` | mapping | {'decoupled only' if key.absent else ''} | {key.about} |"
            yield from rows(key.kind, f"{path}.")
            continue
        default = "required" if key.default is REQUIRED else key.kind.write(key.default)
        words = {"": "empty", "[]": "empty", "True": "true", "False": "false"}.get(str(default), str(default))
        yield f"| `{path}` | {value_of(key.kind)} | {words} | {key.about} |"


def test_the_table_of_keys_is_the_loaders() -> None:
    text = (DOCS / "hardware.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| `")] == list(rows(HARDWARE))


def test_the_example_loads_with_its_prices(tmp_path: Path) -> None:
    text = (DOCS / "hardware.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example.yaml").write_text(example)
    machine = load_accelerator(tmp_path / "example.yaml")
    assert machine.name == "small"
    assert load_prices(machine).name == "45nm"


def test_every_section_of_an_energy_table_is_described() -> None:
    text = (DOCS / "energy.md").read_text(encoding="utf-8")
    described = {
        name for line in text.splitlines() if line.startswith("| `") for name in re.findall("`([a-z_]+)`", line)
    }
    header = {"pgsim_energy", "name", "description", "node", "voltage", "sources"}
    assert {key.name for key in ENERGY.keys} - header <= described
