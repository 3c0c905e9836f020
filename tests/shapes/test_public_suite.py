"""Library models and short functions, each run again at other sizes: no size may differ from its formula."""

import copy
import warnings
from collections import Counter

import pytest
import torch
from library_cases import KNOWN, Known
from short_cases import PAIRS, PICTURES, SOUND

from avlib import shapes
from avlib.errors import ParameterError

LENGTHS = [{"T": size} for size in (1, 3, 16, 33, 99, 128, 320, 513, 1000)] + [{"B": 1}, {"B": 3, "T": 333}]
GRIDS = [{"H": 7}, {"H": 65}, {"W": 1}, {"W": 47}, {"W": 100}, {"B": 1, "H": 80, "W": 30}, {"B": 3, "H": 33, "W": 77}]
TWO = [{"T": 7}, {"U": 9}, {"T": 300, "U": 200}, {"B": 1}, {"T": 80, "U": 80}]
QUICK = ("torchvision squeezenet1_1",)


def short(function, make, dims: dict, sizes: dict, others: list) -> Known:
    return Known(lambda: copy.deepcopy(function), make, dims, sizes, [{**sizes, **other} for other in others])


def sound(B, T):
    return {"x": torch.randn(B, T)}


def picture(B, H, W):
    return {"x": torch.randn(B, 3, H, W)}


def pair(B, T, U):
    return {"x": torch.randn(B, T), "y": torch.randn(B, U)}


SHORT = {name: short(function, sound, {"x": "B T"}, {"B": 2, "T": 100}, LENGTHS) for name, function in SOUND.items()}
SHORT |= {
    f"picture {name}": short(function, picture, {"x": "B 3 H W"}, {"B": 2, "H": 64, "W": 48}, GRIDS)
    for name, function in PICTURES.items()
}
SHORT |= {
    f"pair {name}": short(function, pair, {"x": "B T", "y": "B U"}, {"B": 2, "T": 50, "U": 80}, TWO)
    for name, function in PAIRS.items()
}
SLOW = {"split3", "loop", "tobytes", "stk", "splr", "picture aff", "vw", "mha"}
CASES = KNOWN | SHORT
FEW = {*list(SHORT)[::5], *(name for name in QUICK if name in KNOWN)} - SLOW


def keyed(trace: shapes.Trace) -> dict[tuple, list[tuple]]:
    """Rows by what they are and how often that came before."""
    counts, found = Counter(), {}
    for row in trace.rows:
        key = row.kind, row.path, row.call, row.name, str(row.source)
        counts[key] += 1
        found[*key, counts[key]] = row
    return found


def differences(told: shapes.Trace, real: shapes.Trace) -> list[str]:
    seen, found = keyed(real), []
    for key, row in keyed(told).items():
        for side in ("inputs", "outputs") if key in seen else ():
            shapes_seen = {info.path: info.shape for info in getattr(seen[key], side)}
            for info in getattr(row, side):
                shape = shapes_seen.get(info.path)
                if shape is None or None in info.shape:
                    continue
                if len(shape) != len(info.shape) or any(a != b for a, b in zip(info.shape, shape, strict=True)):
                    found.append(f"{row.label} {info.path}: told {info.formula} = {info.shape}, is {shape}")
    paths = [[info.path for info in trace.root.outputs] for trace in (told, real)]
    return found + ([f"outputs {paths[0]}, are {paths[1]}"] if paths[0] != paths[1] else [])


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FEW else [pytest.mark.long]) for n in CASES])
def test_no_size_is_wrong(name):
    case = CASES[name]

    def traced(sizes, **options):
        torch.manual_seed(0)
        return shapes.trace(case.build(), kwargs={**case.inputs(**sizes), **case.options}, **options)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about models that are this small
        trace = traced(case.sizes, dims=case.dims)
        for sizes in case.others:
            try:
                real = traced(sizes)
            except (RuntimeError, ValueError, AssertionError, IndexError):
                with pytest.raises(ParameterError):  # the limit is told
                    trace.at(**sizes)
                continue
            try:
                told = trace.at(**sizes)
            except ParameterError:
                continue  # formulas hold within limits that are told
            assert not differences(told, real), sizes
    unknown = [info.formula for info in trace.root.outputs if None in (info.formulas or ())]
    assert not unknown or trace.notes  # with the reason


def test_the_suite_is_large():
    assert len(CASES) >= 150 and 30 <= len(FEW) <= 80
