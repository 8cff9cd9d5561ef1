"""pgsim trace, of a language model: measure its perplexity on the test words, and trace steps of its LSTM."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from pgsim.cli.progress import counted
from pgsim.cli.trace_options import digests_of, up_to
from pgsim.errors import InputError


def trace_language(args: argparse.Namespace, made_by: str) -> int:
    """Measure the model on the test words; write the trace of its first steps, the result, or both; return 0."""
    from pgsim.io.atomic import check_writable
    from pgsim.io.trace import write_trace
    from pgsim.train import loop
    from pgsim.train.language.corpus import CORPUS_FILE, read_corpus
    from pgsim.train.language.loop import score
    from pgsim.train.language.trace import build_language_trace, measured_info
    from pgsim.train.language.weights import read_language_model

    model, recipe, history = read_language_model(Path(args.checkpoint))
    if recipe.cell == "float" and args.output:
        must = "must be of a quantised or gated cell for a trace, not of a float one"
        raise InputError(f"{args.checkpoint} {must}; --result without -o measures it")
    corpus = read_corpus(Path(args.data))
    if corpus.vocabulary != model.vocabulary:
        raise InputError(f"{CORPUS_FILE} must have {model.vocabulary} words, as the model, not {corpus.vocabulary}")
    steps = len(corpus.test) - 1
    up_to("--images", args.images, steps)
    count = up_to("--evaluate", args.evaluate, steps)
    for path in filter(None, (args.output, args.result)):
        check_writable(path)  # measuring takes a minute
    loop.prepare_process(args.threads)
    with counted("test words", count) as done:
        measured = score(model, corpus.test[: count + 1], report=done)
    if not math.isfinite(measured.perplexity):
        raise InputError(f"{args.checkpoint}: perplexity must be finite, not {measured.perplexity}")
    info = {
        "dataset": f"Penn Treebank test ({CORPUS_FILE}), embedded: codes of [x, h], no words",
        "made_by": made_by,
        **digests_of(Path(args.checkpoint), Path(args.data) / CORPUS_FILE),
        "training": history,
        **measured_info(recipe, measured, whole_set=count == steps),
    }
    if args.output:
        write_trace(args.output, build_language_trace(model, corpus.test[: args.images], info))
    if args.result:
        from pgsim.paper.stored import write_result

        write_result(args.result, info)
    gated = f", sparsity {100 * measured.sparsity:.2f} %" if recipe.cell == "gated" else ", no layer is gated"
    print(
        f"{args.output or args.result}: perplexity {measured.perplexity:.2f} of {measured.words} words{gated}",
        file=sys.stderr,
    )
    return 0
