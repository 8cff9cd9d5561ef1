"""Hardware files of machines that compile in seconds."""

from pgsim.io.shipped import shipped_folder


def small_machine_text() -> str:
    """A `predictivenet` of a few lanes, as YAML."""
    text = (shipped_folder() / "predictivenet.yaml").read_text(encoding="utf-8")
    for key, value in (("rows: 8", "rows: 2"), ("columns: 16", "columns: 2"), ("multipliers: 8", "multipliers: 2")):
        text = text.replace(key, value)
    for key, value in (("groups: 8", "groups: 2"), ("lanes: 4", "lanes: 2"), ("banks: 64", "banks: 4")):
        text = text.replace(key, value)
    return text
