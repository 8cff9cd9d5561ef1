"""pgsim options: what other choices of hardware arithmetic do to a trained network's accuracy."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgsim.cli.progress import counted
from pgsim.cli.trace_options import MAX_THREADS, digests_of, keep_apart, up_to
from pgsim.errors import InputError

if TYPE_CHECKING:
    from pgsim.train.options import Measured, Survey

FORMAT, VERSION = "pgsim-options-result", 1
WORD = 8  # channels that a step adds in the shipped predictivenet
MAX_WORD = 2**20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from pgsim.workload.arithmetic_forms import FORMS, USUAL

    parts = "\n".join(f"  {form}: {words}" for form, words in FORMS.items())
    usual = textwrap.fill(f"Usual options: {', '.join(USUAL)}.", 100, break_on_hyphens=False)
    parser.epilog = f"An option is made of parts, joined by +:\n{parts}\n{usual}"
    parser.add_argument("--checkpoint", metavar="CKPT", required=True, help="checkpoint or weights of pgsim train")
    parser.add_argument("--data", metavar="DIR", required=True, help="folder with cifar10_test.npz")
    parser.add_argument("--evaluate", metavar="M", type=int, help="measure on the first M test images (default: all)")
    parser.add_argument(
        "--option", metavar="NAME", action="append", help="measure this option; may be given again (default: the usual)"
    )
    parser.add_argument(
        "--word", metavar="N", type=int, default=WORD, help=f"channels that a step adds to a sum (default: {WORD})"
    )
    parser.add_argument("-o", "--output", metavar="OUT.json", help="also write what was measured")
    parser.add_argument(
        "--trace", metavar=("NAME", "OUT.npz"), nargs=2, help="also write the network under this option as a trace"
    )
    parser.add_argument("--images", metavar="N", type=int, default=8, help="images of the trace (default: 8)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="torch threads (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables and write what was asked for; return 0."""
    try:
        from pgsim.train import loop
    except ModuleNotFoundError as error:
        raise InputError(
            f"pgsim options must have torch installed (pip install 'pgsim[train]'), not lack {error.name}"
        ) from None
    from pgsim import __version__
    from pgsim.io.atomic import check_writable, replacing
    from pgsim.io.trace import write_trace
    from pgsim.train.data import TEST_FILE, image_codes, read_test
    from pgsim.train.export import exported
    from pgsim.train.frozen import freeze
    from pgsim.train.options import option_trace, survey
    from pgsim.train.recipe import recipe_text
    from pgsim.train.weights import read_network
    from pgsim.workload.arithmetic import rewritten
    from pgsim.workload.arithmetic_forms import USUAL
    from pgsim.workload.arithmetic_names import describe, parse_arithmetic

    up_to("--threads", args.threads, MAX_THREADS)
    up_to("--word", args.word, MAX_WORD)
    names = list(dict.fromkeys(args.option or USUAL))
    options = {name: parse_arithmetic(name, args.word) for name in names}
    traced = parse_arithmetic(args.trace[0], args.word) if args.trace else None
    checkpoint = Path(args.checkpoint)
    net, recipe, _ = read_network(checkpoint)
    test = read_test(Path(args.data))
    count = up_to("--evaluate", args.evaluate, len(test))
    keep_apart([args.output, *(args.trace or [])[1:]], (checkpoint, Path(args.data) / TEST_FILE))
    if traced is not None:
        up_to("--images", args.images, len(test))
    for path in [args.output, *(args.trace or [])[1:]]:
        if path:
            check_writable(path)  # measuring takes minutes
    loop.prepare_process(args.threads)
    frozen = freeze(net)
    for choice in options.values():
        rewritten(exported(frozen), choice)  # refuses what the network cannot be written in
    info = {
        "model": recipe.network,
        "dataset": f"CIFAR-10 test ({TEST_FILE})",
        "recipe": recipe_text(recipe),
        "seed": recipe.seed,
        "made_by": f"pgsim {__version__}",
        "checkpoint": checkpoint.name,
        **digests_of(checkpoint, Path(args.data) / TEST_FILE),
    }
    if traced is not None:
        samples = {"samples": list(range(args.images)), "labels": test.labels[: args.images].tolist()}
        chosen = {"option": args.trace[0], "arithmetic": describe(traced)}
        codes = image_codes(test.pixels[: args.images])
        write_trace(args.trace[1], option_trace(frozen, codes, traced, {**info, **samples, **chosen}))
    with counted("test set", count) as done:
        found = survey(frozen, test.take(slice(0, count)), options, args.word, done)
    document = {
        "format": FORMAT,
        "version": VERSION,
        **info,
        "word": args.word,
        "images": count,
        "whole_set": count == len(test),
        "exact": _plain(found.exact, {}),
        "options": {name: _plain(found.options[name], describe(options[name])) for name in names},
        "partial_sums": {
            name: {"least": x.least, "largest": x.largest, "bits": x.bits, "proven_bits": x.proven_bits}
            for name, x in found.partial_sums.items()
        },
    }
    print(_tables(checkpoint.name, found, count, args.word))
    if args.output:
        with replacing(args.output) as stream:
            stream.write(json.dumps(document, indent=1).encode() + b"\n")
    return 0


def _plain(measured: Measured, arithmetic: dict[str, Any]) -> dict[str, Any]:
    paired = measured.paired
    first = measured.first_differing
    return {
        "arithmetic": arithmetic,
        "right": paired.other_right,
        "top1": round(100 * paired.other_right / paired.images, 4),
        "difference_points": round(paired.difference_points, 4),
        "interval_95_points": [round(end, 4) for end in paired.interval_points],
        "labels_changed": paired.changed,
        "right_only_exact": paired.only_first,
        "right_only_option": paired.only_second,
        "mcnemar_p": paired.p_value,
        "first_differing_layer": first and first[0],
        "first_differing_percent": 100 * first[1] if first else 0.0,
        "last_differing_percent": 100 * measured.last_share,
        "codes_differing_percent": {name: 100 * share for name, share in measured.differing.items()},
        "sparsity_percent": round(100 * measured.sparsity, 3),
        "images_proved_equal": measured.proved_equal,
    }


def _tables(checkpoint: str, found: Survey, images: int, word: int) -> str:
    from pgsim.cli.table import aligned

    header = (
        "option", "top-1\n%", "differ-\nence", "95 %\ninterval", "labels\nchanged", "right only\nexact",
        "right only\noption", "McNemar\np", "first layer\nthat differs", "codes\nthere %", "codes of last\nlayer %",
        "Sp\n%",
    )  # fmt: skip
    rows = [_row("exact", found.exact), *(_row(name, measured) for name, measured in found.options.items())]
    sums = [
        (name, str(x.least), str(x.largest), str(x.bits), str(x.proven_bits)) for name, x in found.partial_sums.items()
    ]
    return "\n".join(
        [
            f"{checkpoint}, first {images} test images; differences in points from the exact network.",
            aligned(header, rows, ("option", "first layer\nthat differs")),
            "",
            f"Partial sums of the exact network, {word} channels a step: bits that held them, and bits that hold any",
            "image's.",
            aligned(("layer", "least", "largest", "bits", "any image"), sums, ("layer",)),
        ]
    )


def _row(name: str, measured: Measured) -> tuple[str, ...]:
    paired, first = measured.paired, measured.first_differing
    low, high = paired.interval_points
    return (
        name,
        f"{100 * paired.other_right / paired.images:.2f}",
        f"{paired.difference_points:+.2f}",
        f"{low:+.2f} {high:+.2f}",
        str(paired.changed),
        str(paired.only_first),
        str(paired.only_second),
        f"{paired.p_value:.2g}",
        first[0] if first else "none",
        f"{100 * first[1]:.4f}" if first else "0",
        f"{100 * measured.last_share:.2f}",
        f"{100 * measured.sparsity:.2f}",
    )
