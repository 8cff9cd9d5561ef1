"""pgsim trace --result, of the weights of a float ResNet: measure it in float32, for the float rows of the tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pgsim.cli.progress import counted
from pgsim.cli.trace_options import digests_of, up_to
from pgsim.errors import InputError

if TYPE_CHECKING:
    from pgsim.train.data import Images
    from pgsim.train.teacher import FloatResNet

BATCH = 250


def measure_float(args: argparse.Namespace, made_by: str) -> int:
    """Measure the network on the test set and write the result; return 0."""
    from pgsim.io.atomic import check_writable
    from pgsim.paper.stored import write_result
    from pgsim.train import loop
    from pgsim.train.data import TEST_FILE, read_test
    from pgsim.train.teacher import read_teacher

    path = Path(args.checkpoint)
    if args.output:
        must = "must be weights of pgsim train for a trace, not a float network's"
        raise InputError(f"{path} {must}; --result without -o measures it")
    net = read_teacher(path)
    test = read_test(Path(args.data))
    count = up_to("--evaluate", args.evaluate, len(test))
    check_writable(args.result)
    loop.prepare_process(args.threads)
    right = 0
    with counted("test set", count) as done:
        for first in range(0, count, BATCH):
            right += _right(net, test.take(slice(first, min(first + BATCH, count))), path)
            done(min(first + BATCH, count))
    top1 = 100 * right / count
    info = {
        "model": f"resnet{6 * net.blocks + 2}",
        "dataset": f"CIFAR-10 test ({TEST_FILE})",
        "given_weights": path.name,
        "made_by": made_by,
        **digests_of(Path(args.checkpoint), Path(args.data) / TEST_FILE),
        "notes": "float32 throughout, of weights that pgsim did not train",
        "top1" if count == len(test) else "top1_of_evaluated": round(top1, 4),
        "evaluated_images": count,
    }
    write_result(args.result, info)
    print(f"{args.result}: top-1 {top1:.2f} % of {count}, in float32", file=sys.stderr)
    return 0


def _right(net: FloatResNet, images: Images, path: Path) -> int:
    from pgsim.train.data import normalised

    logits = net.logits(normalised(images.pixels))
    if not bool(logits.isfinite().all()):
        raise InputError(f"{path}: its logits must be finite, not infinite or NaN; the weights are too large")
    return int((logits.argmax(1).numpy() == images.labels).sum())
