"""Every way in which the metadata and the arrays of a trace can be wrong has its own line, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.io.read_all import message_of
from tests.io.tamper import Parts, take_apart

Change = Callable[[Parts], object]


def put(section: Callable[[Parts], dict[str, Any]], key: str, value: Any) -> Change:
    return lambda parts: section(parts).__setitem__(key, value)


def meta(parts: Parts) -> dict[str, Any]:
    return parts.meta


def layer(index: int) -> Callable[[Parts], dict[str, Any]]:
    return lambda parts: parts.layer(index)


def under(index: int, key: str) -> Callable[[Parts], dict[str, Any]]:
    return lambda parts: parts.layer(index)[key]


def step(index: int, position: int) -> Callable[[Parts], dict[str, Any]]:
    return lambda parts: parts.layer(index)["post"][position]


def array(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    def apply(parts: Parts) -> None:
        parts.arrays[name] = change(parts.arrays[name].copy())

    return apply


def element(name: str, index: Any, value: Any) -> Change:
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return array(name, change)


def drop(section: Callable[[Parts], dict[str, Any]], key: str) -> Change:
    return lambda parts: section(parts).pop(key)


NAME_RULE = "must be a name of 1 to 200 printable ASCII characters without spaces or quotes"

CONTENTS: dict[str, tuple[Change, str]] = {
    # metadata: the document
    "unknown version": (put(meta, "version", 2), "version must be 1, not 2"),
    "version true": (put(meta, "version", True), "version must be 1, not true"),
    "version text": (put(meta, "version", "1"), "version must be 1, not '1'"),
    "other format": (put(meta, "format", "onnx"), "format must be pgsim-trace, not 'onnx'"),
    "no format": (drop(meta, "format"), "format must be there, not missing"),
    "unknown key": (put(meta, "author", "me"), "the document must not have the key 'author'"),
    "no images": (put(meta, "images", 0), "images must be an integer from 1 to 1048576, not 0"),
    "images a float": (put(meta, "images", 2.0), "images must be an integer from 1 to 1048576, not 2.0"),
    "images a bool": (put(meta, "images", True), "images must be an integer from 1 to 1048576, not true"),
    "images text": (put(meta, "images", "2"), "images must be an integer from 1 to 1048576, not '2'"),
    "images huge": (
        put(meta, "images", 10**400),
        "images must be an integer from 1 to 1048576, not an integer of 1329 bits",
    ),
    "images differ": (put(meta, "images", 3), "000.activation must have shape [3, 3, 8, 8], not [2, 3, 8, 8]"),
    "no layers": (put(meta, "layers", []), "layers must be a list of 1 to 1000 layers, not []"),
    "layers a mapping": (put(meta, "layers", {}), "layers must be a list, not a mapping"),
    "layer a number": (lambda p: p.meta["layers"].__setitem__(1, 7), "layers[1] must be a mapping, not 7"),
    "info a list": (put(meta, "info", []), "info must be a mapping, not []"),
    "labels short": (
        lambda p: p.meta["info"].update(labels=[1]),
        "info.labels must be a list of 2 class numbers, not [1]",
    ),
    "labels bool": (
        lambda p: p.meta["info"].update(labels=[True, 1]),
        "info.labels[0] must be a class number, an integer, not true",
    ),
    "labels text": (
        lambda p: p.meta["info"].update(labels=[1, "cat"]),
        "info.labels[1] must be a class number, an integer, not 'cat'",
    ),
    "labels a mapping": (
        lambda p: p.meta["info"].update(labels={"0": 1, "1": 1}),
        "info.labels must be a list of 2 class numbers, not a mapping",
    ),
    "predictions": (
        lambda p: p.meta["info"].update(predictions=[1, 2, 3]),
        "info.predictions must be a list of 2 class numbers, not [1, 2, 3]",
    ),
    "prediction missing": (
        lambda p: p.meta["info"].update(predictions=[None, 1]),
        "info.predictions[0] must be a class number, an integer, not null",
    ),
    "sample a float": (
        lambda p: p.meta["info"].update(samples=[0, 0.5]),
        "info.samples[1] must be an id, an integer or text, not 0.5",
    ),
    "samples": (lambda p: p.meta["info"].update(samples="all"), "info.samples must be a list of 2 ids, not 'all'"),
    "top1": (lambda p: p.meta["info"].update(top1=101), "info.top1 must be a percentage from 0 to 100, not 101"),
    "top1 text": (
        lambda p: p.meta["info"].update(top1="92%"),
        "info.top1 must be a percentage from 0 to 100, not '92%'",
    ),
    # metadata: layers
    "unknown layer key": (put(layer(0), "bias", 1), "layers[0] must not have the key 'bias'"),
    "missing layer key": (drop(layer(0), "weight"), "layers[0].weight must be there, not missing"),
    "no kind": (drop(layer(0), "kind"), "layers[0].kind must be there, not missing"),
    "kernel on a linear layer": (put(layer(5), "kernel", [1, 1]), "layers[5] must not have the key 'kernel'"),
    "matmul without rows": (drop(layer(6), "rows"), "layers[6].rows must be there, not missing"),
    "unknown kind": (
        put(layer(0), "kind", "pool"),
        "layers[0].kind must be one of conv, linear, matmul, not 'pool'",
    ),
    "unknown encoding": (
        put(under(0, "activation"), "encoding", "gray"),
        "layers[0].activation.encoding must be one of unsigned, sign_magnitude, twos_complement, not 'gray'",
    ),
    "unsigned weights": (
        put(under(0, "weight"), "encoding", "unsigned"),
        "layers[0].weight.encoding must be sign_magnitude or twos_complement, not 'unsigned'",
    ),
    "16-bit unsigned": (
        put(under(1, "activation"), "bits", 16),
        "layers[1].activation.bits must be an integer from 1 to 15, not 16",
    ),
    "1-bit two's complement": (
        put(under(0, "activation"), "bits", 1),
        "layers[0].activation.bits must be an integer from 2 to 16, not 1",
    ),
    "bits text": (
        put(under(0, "weight"), "bits", "8"),
        "layers[0].weight.bits must be an integer from 2 to 16, not '8'",
    ),
    "scale text": (
        put(under(0, "activation"), "scale", "0.5"),
        "layers[0].activation.scale must be a finite number above 0, not '0.5'",
    ),
    "scale bool": (
        put(under(0, "activation"), "scale", True),
        "layers[0].activation.scale must be a finite number above 0, not true",
    ),
    "scale zero": (
        put(under(0, "activation"), "scale", 0),
        "layers[0].activation.scale must be a finite number above 0, not 0",
    ),
    "scale negative": (
        put(under(0, "activation"), "scale", -0.5),
        "layers[0].activation.scale must be a finite number above 0, not -0.5",
    ),
    "scale beyond float64": (
        put(under(0, "activation"), "scale", 10**400),
        "layers[0].activation.scale must be a finite number above 0, not an integer of 1329 bits",
    ),
    "units underflow": (
        put(under(0, "activation"), "scale", 5e-324),
        "000.weight_scale must give units within float64, not beyond its range",
    ),
    "units overflow": (
        element("001.weight_scale", 1, 1e308),
        "001.weight_scale must give units within float64, not beyond its range",
    ),
    "pred_bits = bits": (
        put(under(1, "gate"), "pred_bits", 3),
        "layers[1].gate.pred_bits must be an integer from 1 to 2, not 3",
    ),
    "pred_bits 0": (
        put(under(1, "gate"), "pred_bits", 0),
        "layers[1].gate.pred_bits must be an integer from 1 to 2, not 0",
    ),
    "unknown policy": (
        put(under(1, "gate"), "policy", "drop"),
        "layers[1].gate.policy must be keep or zero, not 'drop'",
    ),
    "gate false": (put(layer(1), "gate", False), "layers[1].gate must be a mapping, not false"),
    "groups not dividing": (put(layer(4), "groups", 3), "layers[4].groups must divide in_channels = 4, not 3"),
    "groups not dividing outputs": (
        put(layer(4), "groups", 4),
        "layers[4].groups must divide out_channels = 6, not 4",
    ),
    "kernel too large": (
        put(layer(0), "kernel", [3, 11]),
        "layers[0].kernel must fit the padded input of 10 x 10, not span 3 x 11",
    ),
    "kernel of three": (
        put(layer(0), "kernel", [3, 3, 3]),
        "layers[0].kernel must be a list of 2 integers, not [3, 3, 3]",
    ),
    "kernel of floats": (
        put(layer(0), "kernel", [3, 3.0]),
        "layers[0].kernel[1] must be an integer from 1 to 255, not 3.0",
    ),
    "stride 0": (put(layer(0), "stride", [0, 1]), "layers[0].stride[0] must be an integer from 1 to 255, not 0"),
    "padding negative": (
        put(layer(0), "padding", [0, 0, -1, 0]),
        "layers[0].padding[2] must be an integer from 0 to 255, not -1",
    ),
    "too many products": (
        lambda p: p.layer(0).update(in_channels=2**20, in_height=999, in_width=999, kernel=[255, 255]),
        "layers[0] must sum fewer than 1073741824 products, not 68183654400",
    ),
    "name with a space": (put(layer(0), "name", "a b"), f"layers[0].name {NAME_RULE}, not 'a b'"),
    "name with a line break": (put(layer(0), "name", "a\nb"), f"layers[0].name {NAME_RULE}, not 'a\\nb'"),
    "name of half a character": (put(layer(0), "name", "\ud800"), f"layers[0].name {NAME_RULE}, not '\\ud800'"),
    "empty name": (put(layer(0), "name", ""), f"layers[0].name {NAME_RULE}, not ''"),
    "name twice": (put(layer(1), "name", "stem"), "layers[1].name must differ from those before it, not 'stem'"),
    # metadata: the graph
    "unknown input": (
        put(layer(1), "input", "nobody"),
        "layers[1].input must name codes of an earlier layer or of a boundary, not 'nobody'",
    ),
    "its own input": (
        put(layer(1), "input", "keep.codes"),
        "layers[1].input must name codes of an earlier layer or of a boundary, not 'keep.codes'",
    ),
    "a later layer's codes": (
        put(layer(1), "input", "zero.codes"),
        "layers[1].input must name codes of an earlier layer or of a boundary, not 'zero.codes'",
    ),
    "a shortcut as input": (
        put(layer(1), "input", "stream0"),
        "layers[1].input must name codes of an earlier layer or of a boundary, not 'stream0'",
    ),
    "input false": (put(layer(1), "input", False), f"layers[1].input {NAME_RULE}, not false"),
    "input of another format": (
        put(layer(2), "input", "stem.codes"),
        "layers[2].input must name 3-bit sign_magnitude codes, not 3-bit unsigned 'stem.codes'",
    ),
    "input of another shape": (
        put(layer(4), "input", "keep.codes"),
        "layers[4].input must name codes of shape [4, 4, 4] an image, not 'keep.codes' of [4, 8, 8]",
    ),
    "shortcut of nobody": (
        put(step(2, 1), "source", "stream9"),
        "layers[2].post[1].source must name a shortcut that an earlier step saves or a boundary, not 'stream9'",
    ),
    "shortcut of a later step": (
        put(step(2, 1), "source", "stream2"),
        "layers[2].post[1].source must name a shortcut that an earlier step saves or a boundary, not 'stream2'",
    ),
    "shortcut of another shape": (
        put(step(2, 1), "stride", 2),
        "layers[2].post[1].source must give shape [4, 8, 8] an image, not [4, 4, 4]",
    ),
    "shortcut of other channels": (
        put(step(4, 1), "pad_after", 2),
        "layers[4].post[1].source must give shape [6, 4, 4] an image, not [7, 4, 4]",
    ),
    "code name twice": (
        put(step(1, 0), "name", "stem.codes"),
        "layers[1].post[0].name must differ from those before it, not 'stem.codes'",
    ),
    "pool too large": (
        put(step(4, 2), "kernel", [5, 2]),
        "layers[4].post[2].kernel must fit the map of 4 x 4, not 5 x 2",
    ),
    "pool padding": (
        put(step(3, 1), "padding", [2, 0, 0, 0]),
        "layers[3].post[1].padding must be smaller than the kernel [2, 2], not [2, 0, 0, 0]",
    ),
    # post steps
    "post a mapping": (put(layer(0), "post", {}), "layers[0].post must be a list, not a mapping"),
    "step a text": (
        lambda p: p.layer(0)["post"].__setitem__(1, "clamp"),
        "layers[0].post[1] must be a mapping, not 'clamp'",
    ),
    "step without op": (drop(step(0, 1), "op"), "layers[0].post[1].op must be there, not missing"),
    "unknown op": (
        put(step(0, 1), "op", "relu"),
        "layers[0].post[1].op must be one of bias, fixed_point, add, clamp, save, sum_pool, max_pool, requantise, "
        "logits, not 'relu'",
    ),
    "unknown step key": (put(step(0, 1), "mid", 3), "layers[0].post[1] must not have the key 'mid'"),
    "missing step key": (drop(step(0, 1), "low"), "layers[0].post[1].low must be there, not missing"),
    "clamp upside down": (
        put(step(0, 1), "low", 70000),
        "layers[0].post[1].high must be an integer from 70000 to 9223372036854775807, not 60000",
    ),
    "shift 63": (put(step(0, 0), "shift", 63), "layers[0].post[0].shift must be an integer from 0 to 62, not 63"),
    "save signed 1": (put(step(0, 2), "signed", 1), "layers[0].post[2].signed must be true or false, not 1"),
    "logits scale": (
        put(step(5, 1), "scale", -1.0),
        "layers[5].post[1].scale must be a finite number above 0, not -1.0",
    ),
    "base beyond the codes": (
        put(step(1, 0), "base", 7),
        "layers[1].post[0].base must be an integer from -7 to 6, not 7",
    ),
    "thresholds of wrong length": (
        array("001.post.0.threshold", lambda a: a[:, 1:]),
        "001.post.0.threshold must have shape [1, 14] or [4, 14], not [4, 13]",
    ),
    "thresholds of too few channels": (
        array("001.post.0.threshold", lambda a: a[:2]),
        "001.post.0.threshold must have shape [1, 14] or [4, 14], not [2, 14]",
    ),
    "unsorted thresholds": (
        element("001.post.0.threshold", (1, slice(4, 6)), (-5, -6)),
        "001.post.0.threshold must be sorted in each row, not -5 before -6 in row 1",
    ),
    "direction 0": (element("001.post.0.direction", 2, 0), "001.post.0.direction must hold 1 or -1, not 0"),
    "multiplier of two channels": (
        array("000.post.0.multiplier", lambda a: a[:2]),
        "000.post.0.multiplier must have shape [1] or [4], not [2]",
    ),
    # arrays
    "missing array": (lambda p: p.arrays.pop("001.threshold"), "001.threshold must be there, not missing"),
    "missing mask": (lambda p: p.arrays.pop("001.mask"), "001.mask must be there, not missing"),
    "extra array": (
        lambda p: p.arrays.update({"000.mask": np.zeros((2, 4, 8, 8), np.bool_)}),
        "the archive must hold only members that the metadata calls for, not 000.mask",
    ),
    "float weights": (
        array("000.weight", lambda a: a.astype(np.float32)),
        "000.weight must be int8 or int16, not float32",
    ),
    "uint16 activation": (
        array("001.activation", lambda a: a.astype(np.uint16)),
        "001.activation must be int8 or uint8 or int16, not uint16",
    ),
    "mask of bytes": (array("001.mask", lambda a: a.astype(np.uint8)), "001.mask must be bool, not uint8"),
    "int32 threshold": (array("001.threshold", lambda a: a.astype(np.int32)), "001.threshold must be int64, not int32"),
    "Fortran order": (array("000.weight", np.asfortranarray), "000.weight must be in C order, not in Fortran order"),
    "big-endian": (
        array("000.output", lambda a: a.astype(">i4")),
        "000.output must be int8 or int16 or int32 or int64, not big-endian int32",
    ),
    "pickled": (
        array("000.weight", lambda a: np.array([{"a": 1}], object)),
        "000.weight must be int8 or int16, not a pickled object array",
    ),
    "complex": (array("000.weight_scale", lambda a: a.astype(complex)), "000.weight_scale must be float64, not '<c16'"),
    "records": (
        array("000.weight", lambda a: np.zeros(3, [("a", "i4")])),
        "000.weight must have a .npy header as numpy writes it, not "
        "\"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': ...",
    ),
    "shape against metadata": (
        array("000.weight", lambda a: a.reshape(4, 3, 9, 1)),
        "000.weight must have shape [4, 3, 3, 3], not [4, 3, 9, 1]",
    ),
    "output of another shape": (
        array("000.output", lambda a: a[:, :, 1:]),
        "000.output must have shape [2, 4, 8, 8], not [2, 4, 7, 8]",
    ),
    "threshold of wrong length": (
        array("001.threshold", lambda a: a[:3]),
        "001.threshold must have shape [4], not [3]",
    ),
    "activation out of range": (
        element("001.activation", (0, 1, 2, 3), 8),
        "001.activation must hold 3-bit unsigned codes, 0 .. 7, not 8",
    ),
    "activation below range": (
        element("002.activation", (0, 1, 2, 3), -8),
        "002.activation must hold 3-bit sign_magnitude codes, -7 .. 7, not -8",
    ),
    "weight out of range": (
        lambda p: [
            put(under(0, "weight"), "bits", 4)(p),
            element("000.weight", ..., 7)(p),
            element("000.weight", 0, -9)(p),
        ],
        "000.weight must hold 4-bit twos_complement codes, -8 .. 7, not -9",
    ),
    "weight scale NaN": (
        element("001.weight_scale", 1, np.nan),
        "001.weight_scale must hold finite numbers above 0, not nan",
    ),
    "weight scale inf": (
        element("001.weight_scale", 1, np.inf),
        "001.weight_scale must hold finite numbers above 0, not inf",
    ),
    "weight scale zero": (
        element("001.weight_scale", 1, 0.0),
        "001.weight_scale must hold finite numbers above 0, not 0.0",
    ),
    "weight scale negative": (
        element("001.weight_scale", 1, -0.5),
        "001.weight_scale must hold finite numbers above 0, not -0.5",
    ),
    "weight scale of two": (
        array("001.weight_scale", lambda a: a[:2]),
        "001.weight_scale must have shape [1] or [4], not [2]",
    ),
    "delta NaN": (element("001.delta", 0, np.nan), "001.delta must hold numbers, not nan"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_wrong_contents_are_refused_with_their_place_and_reason(case: str, good_file: Path, tmp_path: Path) -> None:
    change, expected = CONTENTS[case]
    parts = take_apart(good_file)
    change(parts)
    parts.write(tmp_path / "bad.npz")
    assert message_of(tmp_path / "bad.npz") == f"FILE: {expected}"
