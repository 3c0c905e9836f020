"""Each case of the suite, against what really happens at five random sizes."""

import random
import warnings

import pytest
import torch
from formula_cases import CASES

from avlib import shapes
from avlib.shapes.formula import Formula, sizes


def leaves(nest, path=""):
    """Text, or tuples of sizes, in a nest, by path."""
    if isinstance(nest, dict):
        for key, value in nest.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(nest, tuple | list) and not all(isinstance(size, int | None) for size in nest):
        for i, value in enumerate(nest):
            yield from leaves(value, f"{path}[{i}]")
    elif nest is not None:
        yield path, nest


def same(found: tuple[Formula | None, ...], expected: tuple[Formula | None, ...]) -> bool:
    """Whether formulas are equal; what has none, or a name of its own, is expected as `u`."""
    data = Formula("u")
    pairs = list(zip(found, expected, strict=True))
    return all(str(a)[:1] == "u" if b == data else a == b for a, b in pairs)


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    torch.manual_seed(0)
    choose = random.Random(name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about models that are this small
        fn = case.build()
        trace = shapes.trace(fn, kwargs={**case.inputs(**case.sizes), **case.options}, dims=case.dims)
        for _ in range(5):
            drawn = case.draw(choose)
            told = trace.at(**drawn)
            real = shapes.trace(fn, kwargs={**case.inputs(**drawn), **case.options})
            assert not wrong(told, real), drawn
            assert dict(leaves(told.output_shape)).keys() == dict(leaves(real.output_shape)).keys()

    expected = dict(leaves(case.output))
    found = {
        f"{'' if info.path.startswith('[') or not info.path else '.'}{info.path}": info for info in trace[0].outputs
    }
    assert found.keys() == expected.keys()
    for path, text in expected.items():
        assert same(found[path].formulas, sizes(text)), f"{path}: {found[path].formula}, not {text}"
    needs = [need.formula for need in trace.requires]
    assert tuple(need for need in needs if ">=" not in need and "<=" not in need) == case.requires
    assert bool(trace.unknown) == bool(case.unknown)


def wrong(told: shapes.Trace, real: shapes.Trace) -> list[str]:
    """Modules' inputs and outputs of which a size is told to be another than it is."""
    seen = {(row.path, row.call, side, info.path): info.shape for row, side, info in tensors(real)}
    found = []
    for row, side, info in tensors(told):
        shape = seen.get((row.path, row.call, side, info.path))
        if shape is not None and any(a is not None and a != b for a, b in zip(info.shape, shape, strict=True)):
            found.append(f"{row.label} {info.path}: {info.formula} is told as {info.shape} and is {shape}")
    return found


def tensors(trace: shapes.Trace):
    for row in trace.modules:
        for side, infos in enumerate((row.inputs, row.outputs)):
            for info in infos:
                yield row, side, info


def test_the_suite_is_large_and_says_why_a_size_is_unknown():
    assert len(CASES) >= 24
    assert len([case for case in CASES.values() if case.unknown]) <= 3
