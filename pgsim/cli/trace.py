"""pgsim trace: turn a trained network into a trace of integers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pgsim.cli.progress import counted
from pgsim.cli.trace_options import MAX_THREADS, digests_of, keep_apart, up_to
from pgsim.cli.trace_release import add_release_options, refuse_release_options, trace_release
from pgsim.cli.trace_trunk import add_trunk_options, refuse_trunk_options, trace_trunk
from pgsim.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--checkpoint",
        metavar="CKPT",
        help="checkpoint (.pt) or weights (.npz) of pgsim train, a state dict of the authors' release, or a float"
        " ResNet's weights (--result alone); a torch model of your own is traced in Python (docs/torch.md)",
    )
    network.add_argument("--trunk", metavar="TRUNK.npz", help="float trunk of ShuffleNet V2 0.5x, to be calibrated")
    parser.add_argument(
        "--data",
        metavar="DIR",
        required=True,
        help="folder with cifar10_test.npz, ptb.npz, or imagenet_sample_1.npz for a trunk",
    )
    parser.add_argument(
        "--images",
        metavar="N",
        type=int,
        help="first N images of the test set, of a language model first N time steps (default: 8, of a trunk 1)",
    )
    parser.add_argument("-o", "--output", metavar="OUT.npz", help="the trace to write; not needed with --result")
    parser.add_argument(
        "--evaluate", metavar="M", type=int, help="measure on the first M test images or words (default: all)"
    )
    parser.add_argument(
        "--result", metavar="OUT.json", help="write what was measured, without the trace, for pgsim paper"
    )
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="torch threads (default: 1)")
    add_release_options(parser)
    add_trunk_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure the network on the test set and write the trace, the result, or both; return 0."""
    try:
        from pgsim.train import loop
    except ModuleNotFoundError as error:
        raise InputError(
            f"pgsim trace must have torch installed (pip install 'pgsim[train]'), not lack {error.name}"
        ) from None
    from importlib.metadata import PackageNotFoundError, version

    from pgsim.cli.trace_float import measure_float
    from pgsim.cli.trace_language import trace_language
    from pgsim.cli.trace_shufflenet import trace_shufflenet
    from pgsim.io.atomic import check_writable
    from pgsim.io.strict import check_regular, show_path
    from pgsim.io.trace import write_trace
    from pgsim.paper.stored import write_result
    from pgsim.train.data import TEST_FILE, image_codes, read_test
    from pgsim.train.evaluate import measure
    from pgsim.train.export import build_trace
    from pgsim.train.frozen import freeze
    from pgsim.train.language.corpus import CORPUS_FILE
    from pgsim.train.language.weights import is_language_model
    from pgsim.train.recipe import recipe_text
    from pgsim.train.release.state import is_release
    from pgsim.train.shufflenet.trunk import SAMPLE_FILE
    from pgsim.train.shufflenet.weights import is_shufflenet
    from pgsim.train.teacher import is_float_resnet
    from pgsim.train.weights import read_network

    up_to("--threads", args.threads, MAX_THREADS)
    if not args.output and not args.result:
        raise InputError("-o OUT.npz must be given, or --result OUT.json to measure without a trace, not neither")
    try:
        made_by = f"pgsim {version('pgsim')}"
    except PackageNotFoundError:
        made_by = "pgsim (not installed)"
    read = (TEST_FILE, CORPUS_FILE, SAMPLE_FILE)
    inputs = [Path(args.trunk or args.checkpoint), *(Path(args.data) / name for name in read)]
    keep_apart((args.output, args.result), inputs)
    if args.result and not args.result.endswith(".json"):
        raise InputError(f"--result must end in .json, by which pgsim paper knows it, not be {show_path(args.result)}")
    check_regular(inputs[0])
    if args.batch is not None and args.images is not None:
        raise InputError(f"--images must be left out beside --batch, not be {args.images}")
    if args.images is None:
        args = argparse.Namespace(**{**vars(args), "images": 1 if args.trunk else 8})
    if args.trunk:
        return trace_trunk(args, made_by)
    refuse_trunk_options(args)
    if is_release(Path(args.checkpoint)):
        return trace_release(args, made_by)
    refuse_release_options(args)
    if is_language_model(Path(args.checkpoint)):
        return trace_language(args, made_by)
    if is_shufflenet(Path(args.checkpoint)):
        return trace_shufflenet(args, made_by)
    if is_float_resnet(Path(args.checkpoint)):
        return measure_float(args, made_by)
    net, recipe, history = read_network(Path(args.checkpoint))
    test = read_test(Path(args.data))
    up_to("--images", args.images, len(test))
    count = up_to("--evaluate", args.evaluate, len(test))
    for path in filter(None, (args.output, args.result)):
        check_writable(path)  # measuring takes minutes
    loop.prepare_process(args.threads)
    frozen = freeze(net)
    with counted("test set", count) as done:
        report = measure(
            net,
            frozen,
            test.take(slice(0, count)),
            done,
            anew=recipe.policy == "seernet",
        )
    info = {
        "model": recipe.network,
        "dataset": f"CIFAR-10 test ({TEST_FILE})",
        "samples": list(range(args.images)),
        "labels": test.labels[: args.images].tolist(),
        "recipe": recipe_text(recipe),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "made_by": made_by,
        **digests_of(Path(args.checkpoint), Path(args.data) / TEST_FILE),
        "training": history,
        **report.as_info(whole_set=count == len(test)),
    }
    if args.output:
        write_trace(args.output, build_trace(frozen, image_codes(test.pixels[: args.images]), info))
    if args.result:
        write_result(args.result, info)
    sparsity = f"sparsity {100 * report.sparsity:.2f} % ({100 * report.mac_sparsity:.2f} % by MACs)"
    print(
        f"{args.output or args.result}: top-1 {report.top1:.2f} % of {report.images},"
        f" {sparsity if report.layers else 'no layer is gated'}, float32 labels differ on {len(report.differing)};"
        f" all logits of the exported integers equal torch's on {report.logits_equal} of {report.images}",
        file=sys.stderr,
    )
    return 0
