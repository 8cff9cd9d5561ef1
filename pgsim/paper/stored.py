"""What the project's own runs reached: read from traces, and from the results that `pgsim trace --result` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pgsim.errors import InputError
from pgsim.io.strict import show_path
from pgsim.io.trace import load_trace
from pgsim.paper.claims import PTB, Method

FORMAT, VERSION = "pgsim-training-result", 1
LEFT_OUT = {"network": "resnet20", "clip": "pact", "thresholds": "learned", "policy": "keep"}
"""What recipes of image networks mean where they leave a field out (`pgsim.train.recipe.Recipe`)."""


@dataclass(frozen=True)
class Result:
    """One trained network, measured on its test set.

    Sparsities in percent; `b_avg` by weighting, as in a trace's metadata (`gated_by_outputs`, `all_by_macs`, ...);
    `score` top-1 in percent or perplexity. `finished` is False for weights of an earlier epoch or of a stopped run,
    `epochs` the recipe's all the same. `setting` is the recipe but for its name and seed, as JSON: runs that differ in
    the seed alone have the same. `source` names the file, `digest` its content (of a trace, the seal's).
    """

    network: str
    dataset: str
    method: Method
    bits: tuple[int, int]
    gating: str
    threshold: float | None
    policy: str
    sparsity: float | None
    mac_sparsity: float | None
    b_avg: Mapping[str, float]
    score: float
    epochs: int
    seed: int
    source: str
    digest: str
    finished: bool = True
    setting: str = ""


def load_results(places: Iterable[str | os.PathLike[str]]) -> list[Result]:
    """Return the results of traces (.npz) and result files (.json); of a folder, all that it holds, sorted by name.

    A trace that was not measured on a whole test set has no score and is left out. Raises InputError for a file that
    is neither, or for metadata that lack what a result needs.
    """
    return [result for place in places for path in _files(Path(place)) for result in _read(path)]


def write_result(path: str | os.PathLike[str], info: Mapping[str, Any]) -> None:
    """Write a trace's metadata as a result file, whole or not at all; samples, labels and predictions are left out."""
    from pgsim.io.atomic import replacing

    kept = {key: value for key, value in info.items() if key not in ("samples", "labels", "predictions")}
    with replacing(path) as stream:
        stream.write(json.dumps({"format": FORMAT, "version": VERSION, **kept}, indent=1).encode() + b"\n")


def _files(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    found = sorted(path for path in place.iterdir() if path.suffix in (".npz", ".json"))
    if not found:
        raise InputError(f"{show_path(place)} must hold traces (.npz) or results (.json), not none")
    yield from found


def _read(path: Path) -> Iterator[Result]:
    shown = show_path(path)
    if path.suffix == ".json":
        try:
            content = path.read_bytes()
            info = json.loads(content)
        except OSError as error:
            raise InputError(f"{shown} must be readable, not refused ({error.strerror})") from None
        except ValueError:
            raise InputError(f"{shown} must be JSON, not something else") from None
        if not isinstance(info, dict) or (info.get("format"), info.get("version")) != (FORMAT, VERSION):
            raise InputError(f"{shown} must be a result of pgsim trace (format {FORMAT} {VERSION}), not another file")
        digest = ""
    else:
        trace = load_trace(path, digests=False)
        info, digest = trace.info, trace.sha256
    try:
        result = _result(info, str(path), digest)
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        problem = f"must tell how its network was trained and measured, not lack or garble {error}"
        raise InputError(f"{shown} {problem}".splitlines()[0]) from None
    if result is not None:
        yield result


def _result(info: Mapping[str, Any], source: str, digest: str) -> Result | None:
    recipe = yaml.safe_load(info["recipe"])
    score = info.get("perplexity", info.get("top1"))
    if score is None:
        return None
    act_bits, pred_bits = int(recipe["act_bits"]), int(recipe["pred_bits"])
    sparsity = info.get("sparsity_percent")
    b_avg = dict(info.get("b_avg_bits", {}))
    if not b_avg:
        more = act_bits - (0 if recipe.get("policy") == "seernet" else pred_bits)
        for weighting, share in (("outputs", sparsity), ("macs", info.get("mac_sparsity_percent"))):
            if share is not None:
                b_avg[f"gated_by_{weighting}"] = pred_bits + (1 - share / 100) * more
    fixed = recipe.get("thresholds") == "fixed"
    return Result(
        network=str(info["model"]),
        dataset=str(info["dataset"]).split(" test")[0] if "perplexity" not in info else PTB,
        method=_method(recipe),
        bits=(act_bits, pred_bits),
        gating=str(recipe.get("gating", "")),
        threshold=float(recipe["delta_target"]) if fixed else None,
        policy=str(recipe.get("policy", "keep")),
        sparsity=None if sparsity is None else float(sparsity),
        mac_sparsity=None if sparsity is None else float(info["mac_sparsity_percent"]),
        b_avg=b_avg,
        score=float(score),
        epochs=int(info["epochs"]),
        seed=int(info["seed"]),
        source=source,
        digest=digest,
        finished=bool(info.get("training", {}).get("finished", True)),
        setting=_setting(recipe),
    )


def _setting(recipe: Mapping[str, Any]) -> str:
    """Return what decides a training apart from seed and data, with what older recipes leave out."""
    fields = {**recipe} if "task" in recipe else {**LEFT_OUT, **recipe}
    return json.dumps({key: value for key, value in fields.items() if key not in ("name", "seed")}, sort_keys=True)


def _method(recipe: Mapping[str, Any]) -> Method:
    if recipe["act_bits"] == recipe["pred_bits"]:
        return Method.PACT if recipe.get("clip", "pact") == "pact" else Method.UQ
    if recipe.get("policy") == "seernet":
        return Method.SEERNET
    if recipe.get("thresholds") == "fixed":
        return Method.FIX_THRESHOLD
    return Method.PG if recipe.get("sparse_bp", True) else Method.PG_DENSE_BP
