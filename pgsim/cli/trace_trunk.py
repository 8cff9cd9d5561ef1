"""pgsim trace, of a float trunk of ShuffleNet V2 0.5x: calibrate it on ImageNet images, trace some of them."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from pgsim.cli.trace_options import refusals_of, up_to
from pgsim.cli.trace_release import bits_of
from pgsim.errors import InputError

SCOPES = ("all", "pointwise")
OPTIONS = ("sparsity", "gated")
ELSEWHERE = ("weight_bits", "batch", "shortcut_bits", "evaluate", "result")
DEFAULT_SPARSITY = 57.2  # Precision Gating, Table 1: ShuffleNet V2 0.5x at 6/4


def add_trunk_options(parser: argparse.ArgumentParser) -> None:
    """Add what only a float trunk needs."""
    group = parser.add_argument_group("float trunk of ShuffleNet V2 0.5x (docs/shufflenet.md); takes --bits, too")
    group.add_argument(
        "--sparsity",
        metavar="PERCENT",
        type=float,
        help="share of the gated layers' outputs that calibrated thresholds leave out (default: 57.2)",
    )
    group.add_argument(
        "--gated", choices=SCOPES, help="gate the 1x1 and depthwise convolutions, or the 1x1 alone (default: all)"
    )


def refuse_trunk_options(args: argparse.Namespace) -> None:
    """Refuse the trunk's options for a checkpoint."""
    for name in OPTIONS:
        if getattr(args, name) is not None:
            raise InputError(f"--{name} must be left out without --trunk, not be {getattr(args, name)}")


def trace_trunk(args: argparse.Namespace, made_by: str) -> int:
    """Calibrate the trunk and write the trace of the first images; return 0."""
    from pgsim.io.atomic import check_writable
    from pgsim.io.trace import write_trace
    from pgsim.train import loop
    from pgsim.train.shufflenet.network import IMAGE_FORM
    from pgsim.train.shufflenet.trunk import (
        CALIBRATION_IMAGES,
        MODEL,
        SAMPLE_FILE,
        calibrated_trunk,
        read_samples,
        trunk_trace,
    )

    for name in ELSEWHERE:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} must be left out for --trunk, not be {getattr(args, name)}")
    act_bits, pred_bits = bits_of(args.bits, "--trunk", "--bits 6/4")
    if act_bits > 8:
        raise InputError(f"--bits must be at most 8/PB for --trunk, not {args.bits}")
    percent = DEFAULT_SPARSITY if args.sparsity is None else args.sparsity
    if not (math.isfinite(percent) and 0 <= percent <= 100):
        raise InputError(f"--sparsity must be in 0..100, not {percent:g}")
    scope = args.gated or SCOPES[0]
    samples = read_samples(Path(args.data))
    up_to("--images", args.images, len(samples))
    check_writable(args.output)
    loop.prepare_process(args.threads)
    first = samples.take(slice(0, CALIBRATION_IMAGES))
    with refusals_of(args.trunk):
        net, reached = calibrated_trunk(Path(args.trunk), first, act_bits, pred_bits, scope, percent / 100)
    traced = samples.take(slice(0, args.images))
    gated = "1x1 and depthwise convolutions" if scope == "all" else "1x1 convolutions"
    info = {
        "model": MODEL,
        "dataset": f"ImageNet sample images ({SAMPLE_FILE})",
        "samples": list(range(args.images)),
        "labels": traced.labels.tolist(),
        "made_by": made_by,
        "notes": f"real float weights of the trunk; clips and thresholds calibrated on images 0 .. {len(first) - 1},"
        " not learned; no classifier, so no accuracy is claimed; assumed, as the paper does not say: after the stem the"
        f" {gated} are gated, every one at nearly the same sparsity",
        "trunk": Path(args.trunk).name,
        "image": IMAGE_FORM,
        "gated": scope,
        "sparsity_wanted_percent": percent,
        "sparsity_calibrated_percent": round(100 * reached, 3),
    }
    trace = trunk_trace(net, traced, info)
    write_trace(args.output, trace)
    differing = trace.info["float32_code_differences"]
    print(
        f"{args.output}: sparsity {trace.info['sparsity_percent']:.2f} % on {args.images} images"
        f" ({100 * reached:.2f} % on those of the calibration), thresholds calibrated, not learned; assumed: the"
        f" {gated} are gated; {differing['count']} of {differing['of']} codes differ from float32's",
        file=sys.stderr,
    )
    return 0
