"""pgsim trace, of a ShuffleNet V2 0.5x that pgsim train trained: measure its integer function, trace some images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pgsim.cli.progress import counted
from pgsim.cli.trace_options import digests_of, refusals_of, up_to
from pgsim.errors import InputError


def trace_shufflenet(args: argparse.Namespace, made_by: str) -> int:
    """Measure the network on the test set and write the trace of the first images; return 0."""
    from pgsim import nn
    from pgsim.io.atomic import check_writable
    from pgsim.io.trace import write_trace
    from pgsim.paper.stored import write_result
    from pgsim.train import loop
    from pgsim.train.data import TEST_FILE, read_test
    from pgsim.train.shufflenet.measure import measure_shufflenet
    from pgsim.train.shufflenet.network import IMAGE_FORM, network_images
    from pgsim.train.shufflenet.recipe import shufflenet_recipe_text
    from pgsim.train.shufflenet.weights import read_shufflenet

    net, recipe, history = read_shufflenet(Path(args.checkpoint))
    if recipe.gated == "float" and args.output:
        must = "must be of a quantised or gated network for a trace, not of a float one"
        raise InputError(f"{args.checkpoint} {must}; --result without -o measures it")
    test = read_test(Path(args.data))
    up_to("--images", args.images, len(test))
    count = up_to("--evaluate", args.evaluate, len(test))
    for path in filter(None, (args.output, args.result)):
        check_writable(path)  # measuring takes minutes
    loop.prepare_process(args.threads)
    with counted("test set", count) as done, refusals_of(args.checkpoint):
        report = measure_shufflenet(net, test.take(slice(0, count)), done)
    info = {
        "model": "shufflenetv2_x0.5_cifar",
        "dataset": f"CIFAR-10 test ({TEST_FILE})",
        "samples": list(range(args.images)),
        "labels": test.labels[: args.images].tolist(),
        "image": IMAGE_FORM,
        "recipe": shufflenet_recipe_text(recipe),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "made_by": made_by,
        **digests_of(Path(args.checkpoint), Path(args.data) / TEST_FILE),
        "training": history,
        "notes": "top1 is that of the integer function between recorded boundaries, the mean and what moves elements in"
        " float32",
        **report.as_info(whole_set=count == len(test)),
    }
    if args.output:
        with refusals_of(args.checkpoint):
            trace = nn.trace(net, network_images(test.pixels[: args.images]), info=info)
        write_trace(args.output, trace)
    if args.result:
        write_result(args.result, info)
    sparsity = (
        f"sparsity {100 * report.counts.sparsity():.2f} %"
        if recipe.gated in ("pointwise", "all")
        else "no layer is gated"
    )
    print(
        f"{args.output or args.result}: top-1 {report.top1:.2f} % of {report.images}, {sparsity},"
        f" float32 labels differ on {len(report.differing)}",
        file=sys.stderr,
    )
    return 0
