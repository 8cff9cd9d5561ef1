"""What the project's own runs reached: read from traces, and from the results that `pgsim trace --result` writes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgsim.arith.formats import MAX_BITS
from pgsim.errors import InputError
from pgsim.io.strict import check_regular, key_twice, show, show_path
from pgsim.io.trace import load_trace
from pgsim.io.yaml_file import plain_yaml, read_yaml
from pgsim.paper.claims import PTB, TEST_SET_SIZES, Method

FORMAT, VERSION = "pgsim-training-result", 1
REASONS = "reasons.yaml"
MAX_TEXT = 100
LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "": {"network": "resnet20", "clip": "pact", "thresholds": "learned", "policy": "keep", "rate_drops": []},
    "shufflenet_cifar": {"clip": "pact", "thresholds": "learned", "delta_target": "start", "policy": "keep"},
}
"""What recipes of each task mean where older ones leave a field out (`pgsim.train.recipe.Recipe`, `.shufflenet`)."""


@dataclass(frozen=True)
class Result:
    """One trained network, measured on its test set; `bits` (B, B_hb), None of a float network.

    Sparsities in percent; `b_avg` by weighting, as in a trace's metadata (`gated_by_outputs`, `all_by_macs`, ...);
    `score` top-1 in percent or perplexity. `finished` is False for weights of an earlier epoch or of a stopped run,
    `epochs` the recipe's all the same. `setting` is the recipe but for its name and seed, as JSON: runs that differ in
    the seed alone have the same; `recipe` is its name, without the `_seedN` of another seed; `start` names the weights
    that it began at, empty where these were random. Of weights that the project did not train, epochs and seed are
    None, the setting is their digest, name and start empty. `source` names the file, `digest` its SHA-256 (of a trace,
    the seal's).
    """

    network: str
    dataset: str
    method: Method
    bits: tuple[int, int] | None
    gating: str
    threshold: float | None
    policy: str
    sparsity: float | None
    mac_sparsity: float | None
    b_avg: Mapping[str, float]
    score: float
    epochs: int | None
    seed: int | None
    source: str
    digest: str
    finished: bool = True
    setting: str = ""
    recipe: str = ""
    start: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file that tells no result: where it is, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Stored:
    """What was found: results, the files that are left out, and by recipe why its results are what they are."""

    results: tuple[Result, ...]
    left_out: tuple[LeftOut, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)


def load_results(places: Iterable[str | os.PathLike[str]]) -> Stored:
    """Return the results of traces (.npz) and result files (.json); of a folder, all that it holds, sorted by name.

    Left out are traces without a recipe (an import of the authors' release, a trace of pgsim.nn), those that were not
    measured on a whole test set, and a second file of the same run. Archives of a folder that are no traces (weights)
    are passed over; its reasons.yaml, where there is one, has recipes' names and a sentence for each. Raises InputError
    for a file that is neither trace nor result, and for one whose content garbles what it should tell.
    """
    results: dict[object, Result] = {}
    left_out = []
    reasons: dict[str, str] = {}
    for place in map(Path, places):
        if (place / REASONS).exists():
            reasons |= _reasons(place / REASONS)
        for path in _files(place):
            found = _read(path)
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            key = (found.network, found.dataset, found.setting, found.seed, found.finished, found.score, found.sparsity)
            first = results.setdefault(key, found)
            if first is not found:
                left_out.append(LeftOut(found.source, f"the same run as {show_path(first.source)}"))
    return Stored(tuple(results.values()), tuple(left_out), reasons)


def _reasons(path: Path) -> dict[str, str]:
    file = read_yaml(path, "file of reasons")
    if not isinstance(file.data, dict):
        raise InputError(
            f"{file.shown}: the file of reasons must have recipes' names as keys, not be {show(file.data)}"
        )
    for name, sentence in file.data.items():
        if not isinstance(sentence, str) or not sentence.isprintable() or not sentence.strip():
            raise InputError(f"{file.where((name,))}: {name} must have a sentence on one line, not {show(sentence)}")
    return dict(file.data)


def trace_files(place: Path) -> list[Path]:
    """Return the traces of a folder, sorted by name, or the file itself where it is an archive."""
    if not place.is_dir():
        return [place] if place.suffix == ".npz" else []
    return sorted(path for path in place.glob("*.npz") if _may_be_trace(path))


def _may_be_trace(path: Path) -> bool:
    """Whether an archive has a trace's member of digests; a broken one may be a trace, and is refused as one."""
    if not path.is_file():
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "meta_sha256.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True


def write_result(path: str | os.PathLike[str], info: Mapping[str, Any]) -> None:
    """Write a trace's metadata as a result file, whole or not at all; samples, labels and predictions are left out."""
    from pgsim.io.atomic import replacing

    kept = {key: value for key, value in info.items() if key not in ("samples", "labels", "predictions")}
    with replacing(path) as stream:
        stream.write(
            json.dumps({"format": FORMAT, "version": VERSION, **kept}, indent=1, allow_nan=False).encode() + b"\n"
        )


def _files(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    found = sorted([*trace_files(place), *place.glob("*.json")])
    if not found:
        raise InputError(f"{show_path(place)} must hold traces (.npz) or results (.json), not none")
    yield from found


def _read(path: Path) -> Result | LeftOut:
    shown = show_path(path)

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = key_twice(pairs)
        if twice is not None:
            raise InputError(f"{shown} must have each key once, not {show(twice)} twice")
        return dict(pairs)

    if path.suffix == ".json":
        check_regular(path)
        try:
            content = path.read_bytes()
            info = json.loads(content, object_pairs_hook=no_duplicates)
        except OSError as error:
            raise InputError(f"{shown} must be readable, not refused ({error.strerror})") from None
        except (ValueError, RecursionError):
            raise InputError(f"{shown} must be JSON, not something else") from None
        if not isinstance(info, dict) or (info.get("format"), info.get("version")) != (FORMAT, VERSION):
            raise InputError(f"{shown} must be a result of pgsim trace (format {FORMAT} {VERSION}), not another file")
        digest = hashlib.sha256(content).hexdigest()
    else:
        trace = load_trace(path, digests=False)
        info, digest = trace.info, trace.sha256
    try:
        reason = _why_left_out(info)
        return LeftOut(str(path), reason) if reason else _result(info, str(path), digest)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"must tell how its network was trained and measured, not lack or garble {error}"
        raise InputError(f"{shown} {problem}".splitlines()[0]) from None


def _why_left_out(info: Mapping[str, Any]) -> str:
    """Return why the metadata tell no result; empty where they do."""
    if "recipe" not in info and "given_weights" not in info:
        known = (("top-1", "top1"), ("Sp", "sparsity_percent"))
        figures = ", ".join(f"{word} {info[key]:.2f} %" for word, key in known if key in info)
        tail = f" ({figures})" if figures else ""
        if "frozen_batch" in info:
            return f"a state dict of the authors' release, which does not tell its recipe, epochs and seed{tail}"
        return f"its metadata have no recipe{tail}"
    key = "evaluated_images" if "evaluated_images" in info else "evaluated_words"
    count = _whole(info, key, 0, 10**9) if key in info else None
    size = TEST_SET_SIZES.get(_dataset(info), count)
    if ("perplexity" not in info and "top1" not in info) or (count is not None and count != size):
        return f"not measured on the whole test set{'' if count is None else f', but on {count} of it'}"
    return ""


def _result(info: Mapping[str, Any], source: str, digest: str) -> Result:
    if "given_weights" in info:
        return _given(info, source, digest)
    if not isinstance(info["recipe"], str):
        raise ValueError(f"recipe ({show(info['recipe'])}; it must be text)")
    recipe, score = plain_yaml(info["recipe"], show_path(source), "recipe").data, _score(info)
    method = _method(recipe)
    most = 0 if method is Method.FLOAT else MAX_BITS
    act_bits = _whole(recipe, "act_bits", min(most, 1), most)
    pred_bits = _whole(recipe, "pred_bits", min(most, 1), act_bits)
    gated = method not in (Method.FLOAT, Method.UQ, Method.PACT)
    sparsity, mac_sparsity = (
        _number(info, key, 0.0, 100.0) if gated else None for key in ("sparsity_percent", "mac_sparsity_percent")
    )
    known = info.get("b_avg_bits", {})
    b_avg = {name: _number(known, name, 0.0, 2.0 * MAX_BITS) for name in known}
    if method in (Method.UQ, Method.PACT):
        b_avg = {f"{which}_by_{what}": float(act_bits) for which in ("gated", "all") for what in ("outputs", "macs")}
    elif not b_avg:
        more = act_bits - (0 if recipe.get("policy") == "seernet" else pred_bits)
        for weighting, share in (("outputs", sparsity), ("macs", mac_sparsity)):
            if share is not None:
                b_avg[f"gated_by_{weighting}"] = pred_bits + (1 - share / 100) * more
    fixed = recipe.get("thresholds") == "fixed"
    return Result(
        network=_word(info, "model"),
        dataset=_dataset(info),
        method=method,
        bits=None if method is Method.FLOAT else (act_bits, pred_bits),
        gating=_word({"gating": recipe.get("gating", recipe.get("gated", ""))}, "gating"),
        threshold=_number(recipe, "delta_target", -1e9, 1e9) if fixed else None,
        policy=str(recipe.get("policy", "keep")),
        sparsity=sparsity,
        mac_sparsity=mac_sparsity,
        b_avg=b_avg,
        score=score,
        epochs=_whole(info, "epochs", 0, 10**9),
        seed=_whole(info, "seed", 0, 10**18),
        source=source,
        digest=digest,
        finished=bool(info.get("training", {}).get("finished", True)),
        setting=_setting(recipe),
        recipe=re.sub(r"_seed\d+$", "", str(recipe.get("name", ""))),
        start=str(recipe.get("start_from", recipe.get("float_weights", ""))),
    )


def _dataset(info: Mapping[str, Any]) -> str:
    return PTB if "perplexity" in info else _word(info, "dataset").split(" test")[0]


def _score(info: Mapping[str, Any]) -> float:
    if "perplexity" in info:
        return _number(info, "perplexity", 1.0, 1e9)
    return _number(info, "top1", 0.0, 100.0)


def _word(info: Mapping[str, Any], key: str) -> str:
    """Return a line of text; raises KeyError or ValueError."""
    value = info[key]
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TEXT:
        raise ValueError(f"{key} ({show(value)}; it must be text on one line, of at most {MAX_TEXT} characters)")
    return value


def _number(info: Mapping[str, Any], key: str, low: float, high: float) -> float:
    """Return a finite number within `low` .. `high`; raises KeyError or ValueError."""
    value = info[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value == math.inf:
        raise ValueError(f"{key} ({show(value)}; it must be a number within {low:g} .. {high:g})")
    return float(value)


def _whole(info: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """Return an integer within `low` .. `high`; raises KeyError or ValueError."""
    value = info[key]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key} ({show(value)}; it must be an integer within {low} .. {high})")
    return value


def _given(info: Mapping[str, Any], source: str, digest: str) -> Result:
    """Return the result of float weights that came from elsewhere."""
    return Result(
        network=_word(info, "model"),
        dataset=_dataset(info),
        method=Method.FLOAT,
        bits=None,
        gating="given",
        threshold=None,
        policy="keep",
        sparsity=None,
        mac_sparsity=None,
        b_avg={},
        score=_score(info),
        epochs=None,
        seed=None,
        source=source,
        digest=digest,
        setting=str(info["checkpoint_sha256"]),
    )


def _setting(recipe: Mapping[str, Any]) -> str:
    """Return what decides a training apart from seed and data, with what older recipes leave out."""
    fields = {**LEFT_OUT.get(str(recipe.get("task", "")), {}), **recipe}
    return json.dumps({key: value for key, value in fields.items() if key not in ("name", "seed")}, sort_keys=True)


def _method(recipe: Mapping[str, Any]) -> Method:
    if "float" in (recipe.get("cell"), recipe.get("gated")):
        return Method.FLOAT
    if recipe["act_bits"] == recipe["pred_bits"]:
        return Method.PACT if recipe.get("clip", "pact") == "pact" else Method.UQ
    if recipe.get("policy") == "seernet":
        return Method.SEERNET
    if recipe.get("thresholds") == "fixed":
        return Method.FIX_THRESHOLD
    return Method.PG if recipe.get("sparse_bp", True) else Method.PG_DENSE_BP
