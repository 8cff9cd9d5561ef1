"""The figures show the numbers: marks where runs and claims are, maps that are the masks' means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

import pgsim
from pgsim.errors import InputError
from pgsim.paper.claims import Method
from pgsim.paper.figures import NAME_GAP, clipping, decision_maps, figure_3, figure_4, figure_5, networks_of
from pgsim.workload.trace import Trace
from tests.paper.test_tables import RUN

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trace() -> Trace:
    return pgsim.load_trace(ROOT / "traces" / "resnet20_3-2_release.npz")


def test_figure_4_has_the_papers_marks_and_ours() -> None:
    figure = figure_4([RUN, replace(RUN, bits=(4, 3), b_avg={"gated_by_outputs": 3.25}, score=91.5)], "resnet20", 1)
    paper, whole = figure.axes
    marks = marks_of(paper)
    assert marks["PG, paper"] == [(1.3, 90.6), (2.1, 91.2), (3.2, 91.7)]
    assert marks["PG, ours"] == [(2.1, 91.0), (3.25, 91.5)]
    assert "PACT, ours" not in marks
    assert len(marks["UQ, paper"]) == 3
    assert [line.get_ydata()[0] for line in paper.lines] == [91.7]
    assert marks_of(whole) == {"PG, ours": [(2.6, 91.0)]}  # of the other run that B_avg is not known
    floats = replace(RUN, method=Method.FLOAT, bits=None, sparsity=None, score=92.5, setting="float")
    paper, whole = figure_4([RUN, floats], "resnet20", 1).axes
    assert [line.get_ydata()[0] for line in paper.lines] == [91.7, 92.5]
    assert [line.get_ydata()[0] for line in whole.lines] == [92.5]
    assert len(figure_4([], "resnet20", 1).axes) == 1


def test_a_form_of_a_network_has_a_figure_4_of_its_own_once_it_has_marks() -> None:
    form = replace(RUN, network="shufflenetv2_x0.5_cifar", bits=(6, 4))
    floats = replace(form, method=Method.FLOAT, bits=None, sparsity=None, b_avg={}, score=92.0)
    papers = ["shiftnet20", "resnet20", "shufflenetv2_x0.5"]
    assert networks_of([RUN, floats], 1) == papers
    assert networks_of([form, floats], 1) == [*papers, form.network]
    for axis in figure_4([form, floats], form.network, 1).axes:
        assert [len(marks.get_offsets()) for marks in axis.collections] == [1]
    assert networks_of([], 5) == ["lstm300"]


def test_figure_4_tells_runs_that_were_not_tuned_from_the_others() -> None:
    for axis in figure_4([RUN, replace(RUN, epochs=0, score=90.5, setting="0")], "resnet20", 1).axes:
        marks = marks_of(axis)
        assert [score for _, score in marks["PG, ours"]] == [91.0]
        assert [score for _, score in marks["PG, ours, not tuned"]] == [90.5]


def marks_of(axis: Axes) -> dict[str, list[tuple[float, float]]]:
    """Label -> places of the marks that have it, sorted."""
    named = [mark for mark in axis.collections if not str(mark.get_label()).startswith("_")]
    return {str(mark.get_label()): sorted(map(tuple, np.asarray(mark.get_offsets()).tolist())) for mark in named}


def test_runs_that_lie_together_in_figure_4_are_named_one_above_the_other() -> None:
    close = [replace(RUN, score=score, epochs=epochs) for score, epochs in ((91.0, 14), (91.01, 4), (91.02, 200))]
    close[2] = replace(close[2], gating="all")
    uniform = replace(RUN, method=Method.PACT, bits=(3, 3), gating="none", b_avg={"all_by_macs": 8.0}, score=91.0)
    axis = figure_4([*close, uniform], "resnet20", 1).axes[1]
    names = {text.get_text(): text.xy[1] for text in axis.texts if isinstance(text, Annotation)}
    assert names.keys() == {"3/2", "3/2, 4 epochs", "3/2, all, 200 epochs"}
    assert "(14 epochs, gating: release, where not said)" in axis.get_title(loc="left")
    assert names["3/2"] == 91.0
    assert min(np.diff(sorted(names.values()))) >= NAME_GAP - 1e-9


def test_figure_4_tells_marks_that_lie_below_its_edge() -> None:
    deep = replace(RUN, method=Method.UQ, bits=(2, 2), b_avg={"gated_by_outputs": 2.0, "all_by_macs": 2.0}, score=65.9)
    for axis in figure_4([RUN, deep], "resnet20", 1).axes:
        assert 75 < axis.get_ylim()[0] < 91
        assert [text.get_text()[-4:] for text in axis.texts if "arrow" in text.get_text()] == ["65.9"]


def test_what_lies_below_the_edge_of_figure_4_is_told_one_above_the_other() -> None:
    two = [
        replace(RUN, method=Method.UQ, bits=(2, 2), b_avg={"all_by_macs": b}, score=s, setting=str(s))
        for b, s in ((2.0, 65.9), (2.5, 62.5), (7.9, 50.1))
    ]
    axis = figure_4([RUN, *two], "resnet20", 1).axes[1]
    told = {
        text.get_text()[-4:]: text.xyann[1]
        for text in axis.texts
        if isinstance(text, Annotation)
        if "arrow" in text.get_text()
    }
    assert told["65.9"] == told["50.1"] < told["62.5"]


def test_decision_maps_are_the_share_of_updated_channels_of_the_last_gated_layer(
    trace: Trace,
) -> None:
    name, maps = decision_maps(trace)
    assert name == "layer3.2.conv1"
    assert maps.shape == (8, 8, 8)
    index = [layer.name for layer in trace.layers].index(name)
    mask = trace.tensors(index).mask
    assert mask is not None
    assert maps[3, 2, 5] == mask[3, :, 2, 5].sum() / 64
    classifier = replace(trace.layers[-1], gate=trace.layers[index].gate)
    assert decision_maps(replace(trace, layers=(*trace.layers[:-1], classifier)))[0] == name


def test_figure_5_grows_maps_of_any_size_over_its_first_images(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgsim.paper.figures.MAX_IMAGES", 2)
    for size in (5, 8, 40):
        maps = np.linspace(0, 1, 8 * size * size).reshape(8, size, size)
        monkeypatch.setattr("pgsim.paper.figures.decision_maps", lambda _, maps=maps: ("x", maps))
        figure = figure_5(trace, "t")
        assert len(figure.axes) == 3 * 2 + 1
        assert figure.get_suptitle().endswith("t, the first 2 of 8 images")
        plain, both = (np.asarray(figure.axes[place].images[0].get_array()) for place in (0, 4))
        for row, column in ((0, 0), (31, 31), (13, 30)):
            share = maps[0][row * size // 32, column * size // 32] / maps.max()
            np.testing.assert_allclose(both[row, column], plain[row, column] * (0.25 + 0.75 * share))


@pytest.mark.parametrize("form", [None, "x", {"std": "a"}, {"std": [1, 2]}, {"mean": None}, {"mean": [1, 2, True]}])
def test_a_garbled_form_of_images_is_refused(form: object, trace: Trace) -> None:
    with pytest.raises(InputError, match=r"^t: info\.image must have three numbers each as mean and std, not "):
        figure_5(replace(trace, info={**trace.info, "image": form}), "t")


def test_figure_5_shows_every_image_and_refuses_what_has_none(trace: Trace) -> None:
    figure = figure_5(trace, "x")
    assert len(figure.axes) == 3 * 8 + 1
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert picture.shape == (32, 32, 3)
    assert 0 <= picture.min() < picture.max() <= 1
    with pytest.raises(InputError, match="must have a gated convolution"):
        figure_5(replace(trace, layers=trace.layers[:1]), "x")
    other = replace(trace.layers[0], geometry=replace(trace.layers[0].geometry, in_channels=1))
    with pytest.raises(InputError, match=r"x must begin with images of 3 channels for Figure 5, not with stem"):
        figure_5(replace(trace, layers=(other, *trace.layers[1:])), "x")


def test_an_image_and_its_maps_stand_one_above_the_other_however_few_there_are() -> None:
    figure = figure_5(pgsim.load_trace(ROOT / "traces" / "shiftnet20_5-3_release.npz"), "x")
    FigureCanvasAgg(figure).draw()
    boxes = np.array([axis.get_position().bounds for axis in figure.axes[:6]]).reshape(3, 2, 4)
    np.testing.assert_allclose(boxes[:, :, [0, 2]], boxes[:1, :, [0, 2]].repeat(3, axis=0))


def test_a_picture_is_what_its_trace_says_of_it(trace: Trace) -> None:
    shown = np.asarray(figure_5(trace, "x").axes[0].images[0].get_array())
    form = {"order": "BGR", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    other = replace(trace, info={**trace.info, "image": form})
    codes = trace.tensors(0).activation[0].astype(np.float64) * trace.layers[0].act_scale
    bare = np.asarray(figure_5(other, "x").axes[0].images[0].get_array())
    np.testing.assert_allclose(bare, np.clip(codes[::-1].transpose(1, 2, 0), 0, 1))
    normalised = codes.transpose(1, 2, 0) * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)
    np.testing.assert_allclose(shown, np.clip(normalised, 0, 1))


def test_clipping_makes_high_codes_more_frequent_and_the_prediction_better() -> None:
    without, with_clip = clipping()
    assert with_clip.clip < without.clip
    assert with_clip.high_share > 10 * without.high_share
    assert with_clip.correlation > without.correlation + 0.3
    heights = [bar.get_height() for bar in figure_3().axes[1].patches]
    assert sum(heights) == pytest.approx(100)
    assert heights[0] == pytest.approx(100 * (1 - with_clip.high_share))
