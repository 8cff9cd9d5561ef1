"""The paper's Figures 3, 4 and 5 from our own data (pip install pgsim[plot])."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding
from pgsim.arith.split import split
from pgsim.errors import InputError
from pgsim.io.strict import show
from pgsim.paper.claims import Method
from pgsim.paper.stored import Result
from pgsim.paper.tables import Row, rows
from pgsim.workload.layer import LayerKind
from pgsim.workload.trace import Trace

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#BBBBBB"  # Okabe and Ito
DARK = "#555555"
DEPTHS = 12.0, 5.0
"""Points of top-1 below its best mark at which each panel of Figure 4 ends."""
PALE = 0.4
MAX_IMAGES = 16  # in Figure 5
"""Opacity of runs that were not tuned."""
NAME_GAP = 0.16
"""Points of top-1 or perplexity between names of runs that lie together."""
MARKS = {
    Method.UQ: ("s", ORANGE), Method.PACT: ("^", GREEN), Method.PG: ("o", BLUE),
}  # fmt: skip
"""Method -> (marker, colour); squares, triangles and circles as in the paper."""
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the inputs of our CIFAR-10 networks


@dataclass(frozen=True)
class Clipped:
    """One side of Figure 3: codes by clip, and how well the prediction phase tells the output.

    `high_share` is the share of positive activations whose MSB code is not 0, `correlation` that of O_hb with O.
    """

    clip: float
    high_codes: NDArray[np.int64]
    high_share: float
    correlation: float


def clipping(act_bits: int = 4, pred_bits: int = 2, seed: int = 0) -> tuple[Clipped, Clipped]:
    """Return a toy layer's activations quantised without and with a clip (the paper's section 3.1, Figure 3).

    20,000 sums of 64 products; activations are half-normal, one in 5,000 is four times as large; weights normal.
    Without a clip the scale is the largest activation, with one the bound of least squared error.
    """
    rng = np.random.default_rng(seed)
    real = np.abs(rng.normal(size=(20_000, 64)))
    real[rng.random(real.shape) < 1 / 5000] *= 4
    weights = rng.normal(size=64)
    levels, top = 2**act_bits - 1, float(real.max())

    def error(clip: float) -> float:
        return float(np.square(real - np.rint(np.minimum(real, clip) * levels / clip) * clip / levels).mean())

    best = min((top * share for share in np.linspace(0.02, 1, 50)), key=error)

    def side(clip: float) -> Clipped:
        codes = np.rint(np.minimum(real, clip) * levels / clip).astype(np.int16)
        high, _ = split(codes, Encoding.UNSIGNED, act_bits, pred_bits)
        predicted, whole = high @ weights * 2 ** (act_bits - pred_bits), codes @ weights
        return Clipped(clip, high.astype(np.int64), float((high > 0).mean()), _correlation(predicted, whole))

    return side(top), side(best)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 else 0.0


def figure_3(act_bits: int = 4, pred_bits: int = 2) -> Figure:
    """Return a histogram of the MSB codes of the same activations, without and with a clip."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for one, axis, words in zip(clipping(act_bits, pred_bits), axes, ("without", "with"), strict=True):
        counts = np.bincount(one.high_codes.ravel(), minlength=2**pred_bits) / one.high_codes.size
        axis.bar(range(2**pred_bits), 100 * counts, color=BLUE)
        axis.set_xticks(range(2**pred_bits))
        axis.set_xlabel(f"MSB code ({pred_bits} of {act_bits} bits)")
        title = f"{words} clipping (bound {one.clip:.2f}): {100 * one.high_share:.1f} % not 0,\n"
        axis.set_title(title + f"correlation of $O_{{hb}}$ with $O$ {one.correlation:.2f}", fontsize=10, loc="left")
        _bare(axis)
    axes[0].set_ylabel("% of the activations")
    figure.suptitle("Figure 3, a toy layer: clipping makes the MSBs informative", fontsize=11)
    return figure


def figure_4(results: Sequence[Result], network: str, table: int) -> Figure:
    """Return accuracy over B_avg of one network: the paper's hollow marks, our runs filled, pale those of no epochs.

    On the left B_avg is what the paper counts. On the right, for our runs alone, it is that of all convolutions but the
    stem by MACs, gated or not: what the hardware computes.
    """
    chosen = [row for row in rows(results, table) if row.claim.network == network and row.claim.method in MARKS]
    has_runs = any(_whole_place(row)[0] is not None for row in chosen)
    figure = Figure(figsize=(12, 4.8) if has_runs else (7, 4.6), layout="constrained")
    axes = figure.subplots(1, 1 + has_runs, squeeze=False)[0]
    for method, (mark, colour) in MARKS.items():
        claims = list(dict.fromkeys(row.claim for row in chosen if row.claim.method is method))
        ours = [row for row in chosen if row.claim.method is method and row.ours is not None]
        tuned, untuned = ([row for row in ours if (_epochs(row) == 0) is none] for none in (False, True))
        _points(axes[0], [(c.b_avg, c.score) for c in claims], mark, colour, f"{method.value}, paper", hollow=True)
        for axis, place in zip(axes, (_place, _whole_place), strict=False):
            _points(axis, [place(row) for row in tuned], mark, colour, f"{method.value}, ours")
            _points(axis, [place(row) for row in untuned], mark, colour, f"{method.value}, ours, not tuned", pale=True)
    _float_lines(axes[0], chosen[0].paper_float, chosen[0].our_float)
    gated, whole = ("gated convolutions", "all convolutions but the stem") if table != 5 else ("cell", "the cell")
    axes[0].set_xlabel(f"B_avg of the {gated}, bits, by outputs (as the paper counts)")
    axes[0].set_ylabel("top-1, %" if table != 5 else "perplexity per word (less is better)")
    axes[0].set_title(f"Figure 4: {network}", fontsize=11, loc="left")
    if has_runs:
        _float_lines(axes[1], None, chosen[0].our_float)
        axes[1].set_xlabel(f"B_avg of {whole}, bits, by MACs")
        _name_runs(axes[1], [row for row in chosen if row.ours is not None])
    for axis, depth in zip(axes, DEPTHS, strict=False):
        if table != 5:
            _cut(axis, depth)
        axis.legend(fontsize=8, frameon=False, loc="best")
        _bare(axis)
    return figure


def _cut(axis: Axes, depth: float) -> None:
    """End the axis `depth` points below its best mark; what lies deeper is told at the edge, as an arrow and number."""
    marks = [tuple(place) for marks in axis.collections for place in np.asarray(marks.get_offsets()).tolist()]
    floor = max(y for _, y in marks) - depth
    deeper = [(x, y) for x, y in marks if y < floor]
    if deeper:
        axis.set_ylim(bottom=floor)
    left, right = axis.get_xlim()
    told: list[float] = []
    for x, y in sorted(deeper):
        above = sum(abs(x - other) < 0.12 * (right - left) for other in told)  # one line each
        told.append(x)
        place = (0, 4 + 11 * above)
        axis.annotate(f"$\\downarrow$ {y:.1f}", (x, floor), place, textcoords="offset points", ha="center", fontsize=8)


def _name_runs(axis: Axes, chosen: Sequence[Row]) -> None:
    """Write beside each gated run its bits, and gating and epochs where these are not most runs', which the title
    tells; names that would cover each other one above the other."""
    runs = [row.ours.first for row in chosen if row.ours is not None]
    gatings = Counter(one.gating for one in runs if one.method is Method.PG)
    epochs = Counter(one.epochs for one in runs if one.epochs is not None)
    usual_gating, usual_epochs = (next(iter(counted.most_common(1)), ("", 0))[0] for counted in (gatings, epochs))
    usual = [f"{usual_epochs} epochs"] if usual_epochs else []
    usual += [f"gating: {usual_gating}"] if usual_gating else []
    said = f"\n({', '.join(usual)}, where not said)" if usual else ""
    axis.set_title(f"ours, over the whole network{said}", fontsize=10, loc="left")
    left, right = axis.get_xlim()
    axis.set_xlim(left - 0.15 * (right - left), right)
    written: list[tuple[float, float]] = []
    gated = [(*_whole_place(row), row.ours.first) for row in chosen if row.ours and row.claim.method is Method.PG]
    known = [(x, y, one) for x, y, one in gated if x is not None and y is not None]
    for x, y, one in sorted(known, key=lambda place: place[1]):
        near = [other for at, other in written if abs(at - x) < 0.2 * (right - left)]
        level = max([y, *(other + NAME_GAP for other in near)])
        written.append((x, level))
        words = ["/".join(map(str, one.bits or ()))]
        words += [one.gating] if one.gating != usual_gating else []
        words += [f"{one.epochs} epochs"] if one.epochs != usual_epochs else []
        name = ", ".join(words)
        place = (x - 0.015 * (right - left), level)
        axis.annotate(name, place, va="center", ha="right", fontsize=7, color=DARK)


def _float_lines(axis: Axes, paper: float | None, ours: float | None) -> None:
    """Draw the float networks' scores as lines, named at the right edge, the higher one above its line."""
    higher = max((score for score in (paper, ours) if score is not None), default=None)
    for score, whose, style in ((paper, "paper", "-"), (ours, "ours", "--")):
        if score is not None:
            axis.axhline(score, color=GREY, linewidth=1, linestyle=style, zorder=0)
            side = "bottom" if score == higher else "top"
            right, words = axis.get_yaxis_transform(), f" float,\n {whose}"
            axis.text(1, score, words, transform=right, verticalalignment=side, fontsize=8, color=DARK)


def _epochs(row: Row) -> int | None:
    return row.ours.first.epochs if row.ours else None


def _place(row: Row) -> tuple[float | None, float | None]:
    return row.b_avg, row.ours.score if row.ours else None


def _whole_place(row: Row) -> tuple[float | None, float | None]:
    return (row.ours.b_avg.get("all_by_macs"), row.ours.score) if row.ours else (None, None)


def _points(
    axis: Axes,
    points: Sequence[tuple[float | None, float | None]],
    mark: str,
    colour: str,
    label: str,
    *,
    hollow: bool = False,
    pale: bool = False,
) -> None:
    known = [(x, y) for x, y in points if x is not None and y is not None]
    if not known:
        return
    face = "none" if hollow else colour
    x, y = zip(*known, strict=True)
    size = 60 if hollow else 45
    alpha = PALE if pale else None
    axis.scatter(x, y, size, marker=mark, facecolors=face, edgecolors=colour, linewidths=1.4, label=label, alpha=alpha)


class NoMapsError(InputError):
    """A sound trace that has no decision maps, or no images to draw them over."""


def decision_maps(trace: Trace) -> tuple[str, NDArray[np.float64]]:
    """Return the last gated convolution's name and, for every pixel, the share of its channels that were updated,
    float64 [N, P, Q]. Raises NoMapsError for a trace without one, InputError for one whose arrays are broken."""
    gated = [
        index
        for index, layer in enumerate(trace.layers)
        if layer.gate is not None and layer.geometry.kind is LayerKind.CONV
    ]
    if not gated:
        raise NoMapsError("a trace must have a gated convolution for its decision maps, not none")
    mask = trace.tensors(gated[-1]).mask
    if mask is None:
        raise NoMapsError(f"{trace.layers[gated[-1]].name} must have a recorded mask for decision maps, not none")
    return trace.layers[gated[-1]].name, mask.mean(axis=1)


def figure_5(trace: Trace, title: str) -> Figure:
    """Return the first images (at most `MAX_IMAGES`), below them how many channels of the last gated convolution each
    pixel updated, and both together. Raises NoMapsError for a trace that does not begin with images of three channels,
    InputError for one whose `info.image` is garbled."""
    name, maps = decision_maps(trace)
    first = trace.layers[0]
    if first.input_name is not None or first.geometry.in_channels != 3:
        raise NoMapsError(f"{title} must begin with images of 3 channels for Figure 5, not with {first.name}")
    codes = trace.tensors(0).activation.astype(np.float64) * first.act_scale
    form = trace.info.get("image", {})
    if not isinstance(form, Mapping) or not all(_is_rgb(form.get(key, IMAGE_MEAN)) for key in ("mean", "std")):
        raise InputError(f"{title}: info.image must have three numbers each as mean and std, not {show(form)}")
    images = pixels(codes.transpose(0, 2, 3, 1), form)
    count = min(len(images), MAX_IMAGES)
    down, right = (
        np.arange(size) * maps.shape[axis] // size for axis, size in ((1, images.shape[1]), (2, images.shape[2]))
    )
    figure = Figure(figsize=(max(1.35 * count + 1.2, 6.5), 4.9), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    top = max(float(maps.max()), 1e-9)
    shown = None
    for place in range(count):
        grown = maps[place][np.ix_(down, right)]
        axes[0][place].imshow(images[place])
        shown = axes[1][place].imshow(100 * maps[place], cmap="viridis", vmin=0, vmax=100 * top)
        axes[2][place].imshow(images[place] * (0.25 + 0.75 * grown[:, :, None] / top))
        for line in range(3):
            axes[line][place].set_axis_off()
    assert shown is not None
    figure.colorbar(shown, ax=axes.ravel().tolist(), label="% of channels updated", shrink=0.4)
    shown_of = "" if count == len(images) else f", the first {count} of {len(images)} images"
    figure.suptitle(f"Figure 5, decision maps of {name}: {title}{shown_of}", fontsize=11)
    return figure


def pixels(inputs: NDArray[np.float64], form: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return RGB in 0 .. 1 of a network's inputs [N, H, W, 3]: (v - mean)/std as a trace's `info.image` says.

    Where it says nothing, RGB with the means and deviations of our CIFAR-10 networks.
    """
    values = inputs * form.get("std", IMAGE_STD) + form.get("mean", IMAGE_MEAN)
    return np.clip(values[..., ::-1] if form.get("order") == "BGR" else values, 0, 1)


def _is_rgb(value: object) -> bool:
    if not isinstance(value, Sequence) or len(value) != 3 or any(type(each) not in (int, float) for each in value):
        return False
    return bool(np.isfinite(np.array(value, float)).all())


def _bare(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def networks_of(results: Sequence[Result], table: int) -> list[str]:
    """Return the networks that Figure 4 has marks for: those of a table in the paper's order, and our forms of them."""
    return list(dict.fromkeys(row.claim.network for row in rows(results, table) if row.claim.method in MARKS))
