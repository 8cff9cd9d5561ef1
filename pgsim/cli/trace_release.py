"""pgsim trace, of a state dict of the Precision Gating authors' release: measure, freeze the scales, trace a batch."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from pgsim.cli.progress import counted
from pgsim.cli.trace_options import digests_of, up_to
from pgsim.errors import InputError

OPTIONS = ("bits", "weight_bits", "batch", "shortcut_bits")
DEFAULT_WEIGHT_BITS = 8  # the release's own example
SHORTCUTS = "bits of the trace's shortcuts (default: 16, or 20, 24, 32 where fewer leave codes unlinked)"


def add_release_options(parser: argparse.ArgumentParser) -> None:
    """Add what only a state dict of the release needs."""
    group = parser.add_argument_group("state dict of the authors' PyTorch release (docs/release.md)")
    group.add_argument("--bits", metavar="A/PB", help="its -a and -pb, such as 3/2: act_bits and pred_bits; required")
    group.add_argument("--weight-bits", metavar="W", type=int, help="its -w: magnitude bits of a weight (default: 8)")
    group.add_argument(
        "--batch",
        metavar="FIRST:END",
        help="test images FIRST .. END-1 freeze the scales and are traced (default: 0:N)",
    )
    group.add_argument("--shortcut-bits", metavar="S", type=int, help=SHORTCUTS)


def refuse_release_options(args: argparse.Namespace) -> None:
    """Refuse the release's options for a file that is no state dict of it."""
    from pgsim.train.release.state import refuse_other_file

    for name in OPTIONS:
        if getattr(args, name) is not None:
            refuse_other_file(Path(args.checkpoint))
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} must be left out for a checkpoint of pgsim train, not be {getattr(args, name)}")


def trace_release(args: argparse.Namespace, made_by: str) -> int:
    """Measure the float network on the test set and write the trace of one batch; return 0."""
    from pgsim.io.atomic import check_writable
    from pgsim.io.trace import write_trace
    from pgsim.train import loop
    from pgsim.train.data import TEST_FILE, read_test
    from pgsim.train.release.export import SHORTCUT_CHOICES, build_release_trace
    from pgsim.train.release.forward import Widths, release_images, run_float
    from pgsim.train.release.measure import BATCH, measure_release
    from pgsim.train.release.state import read_release

    bits = bits_of(args.bits, "a state dict of the release", "--bits 3/2 for -a 3 -pb 2")
    widths = Widths(*bits, _width("--weight-bits", args.weight_bits, 2, 15) or DEFAULT_WEIGHT_BITS)
    shortcut_bits = _width("--shortcut-bits", args.shortcut_bits, 8, 32)
    if args.result:
        raise InputError("--result must be left out for a state dict of the release, which does not tell its training")
    net = read_release(Path(args.checkpoint))
    test = read_test(Path(args.data))
    if args.batch is None:
        up_to("--images", args.images, len(test))
    first, end = _batch(f"0:{args.images}" if args.batch is None else args.batch, len(test))
    count = up_to("--evaluate", args.evaluate, len(test))
    check_writable(args.output)  # measuring takes minutes
    loop.prepare_process(args.threads)
    batch = test.take(slice(first, end))
    try:
        trace, compared = build_release_trace(
            net, widths, run_float(net, release_images(batch.pixels), widths), {}, shortcut_bits
        )
    except InputError as error:
        raise InputError(f"{args.checkpoint}: {error}") from None
    with counted("test set", count) as done:
        report = measure_release(net, widths, test.take(slice(0, count)), done)
    info = {
        "model": "resnet20",
        "dataset": f"CIFAR-10 test ({TEST_FILE})",
        "samples": list(range(first, end)),
        "labels": batch.labels.tolist(),
        "made_by": made_by,
        **digests_of(Path(args.checkpoint), Path(args.data) / TEST_FILE),
        "notes": f"state dict of the Precision Gating authors' release; scales frozen to those of images {first} .. "
        f"{end - 1} as one batch, accuracy and sparsity of the float network in batches of {BATCH}",
        "frozen_batch": [first, end],
        "pact": net.stem_clip is not None,
        **report.as_info(whole_set=count == len(test)),
    }
    write_trace(args.output, replace(trace, info={**info, **trace.info}))
    chosen, least = trace.boundaries[0].bits, SHORTCUT_CHOICES[0]
    wider = shortcut_bits is None and chosen > least
    own = f", shortcuts of {chosen} bits ({least} would unlink more layers)" if wider else ""
    own += f", codes of {len(compared.unlinked)} layers recorded on their own" if compared.unlinked else ""
    print(
        f"{args.output}: float top-1 {report.top1:.2f} % of {report.images}, sparsity {100 * report.sparsity:.2f} %;"
        f" images {first} .. {end - 1}: {compared.masks_differing} of {compared.masks} mask bits differ from the float"
        f" gate's ({compared.masks_unexplained} beyond rounding), outputs by up to {compared.output_error:.1e}{own}",
        file=sys.stderr,
    )
    return 0


def bits_of(text: str | None, what: str, example: str) -> tuple[int, int]:
    """Return act_bits and pred_bits of --bits 'A/PB'; `what` needs them, `example` is how they are given."""
    if text is None:
        raise InputError(f"--bits must be given for {what}, as in {example}")
    match = re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})", text)
    if match is None or not 1 <= int(match[2]) < int(match[1]) <= 15:
        raise InputError(f"--bits must be A/PB with 1 <= PB < A <= 15, as in 3/2, not {text!r}")
    return int(match[1]), int(match[2])


def _width(option: str, given: int | None, low: int, high: int) -> int | None:
    if given is not None and not low <= given <= high:
        raise InputError(f"{option} must be in {low}..{high}, not {given}")
    return given


def _batch(text: str, images: int) -> tuple[int, int]:
    """Return FIRST and END of 'FIRST:END'."""
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
    if match is None or not 0 <= int(match[1]) < int(match[2]) <= images:
        raise InputError(f"--batch must be FIRST:END with 0 <= FIRST < END <= {images}, as in 0:8, not {text!r}")
    return int(match[1]), int(match[2])
