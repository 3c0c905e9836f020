"""Formulas from what is seen alone."""

import random

import pytest

from avlib.shapes.fitting import fit
from avlib.shapes.formula import Formula

FORMS = [
    ("8*((T-2800)//2560+1)", {"T": 160_000}, {"T": 1}),
    ("(160*T-1)//441+1", {"T": 44_100}, {"T": 1}),
    ("7*(H//16)//2", {"H": 224}, {"H": 1}),
    ("7*(H//16)//2", {"H": 224}, {"H": 16}),
    ("(7*(H//16)+3)//5", {"H": 224}, {"H": 1}),
    ("(H//16)*(W//16)+1", {"H": 224, "W": 160}, {"H": 1, "W": 1}),
    ("(H//16)*(W//16)+8*(T//16)", {"H": 224, "W": 224, "T": 1024}, {"H": 16, "W": 16, "T": 16}),
    ("B*((T-400)//320+1)", {"B": 3, "T": 16_000}, {"B": 1, "T": 1}),
    ("B*T*2", {"B": 2, "T": 100}, {"B": 1, "T": 1}),
    ("500 - T", {"T": 100}, {"T": 1}),
    ("T//48000", {"T": 160_000}, {"T": 1}),
    ("min(T, 512)", {"T": 100}, {"T": 1}),
    ("max(T//4, 100)", {"T": 4000}, {"T": 1}),
    ("12", {"T": 100}, {"T": 1}),
    ("(3*T+7)//10", {"T": 1000}, {"T": 1}),
]


@pytest.mark.parametrize(("text", "base", "steps"), FORMS)
def test_a_form_is_found_exactly(text, base, steps):
    formula, asked = Formula(text), set()

    def seen(sizes):
        if any((sizes[name] - base[name]) % step for name, step in steps.items()):
            return None
        asked.add(tuple(sizes.values()))
        return formula.value(sizes)

    found, choose = fit(seen, base, steps), random.Random(0)
    assert found is not None and len(asked) < 200
    for _ in range(300):
        sizes = {name: size + steps[name] * choose.randint(0, 9000) for name, size in base.items()}
        assert found.evaluate(**sizes) == formula.evaluate(**sizes)


@pytest.mark.parametrize("text", ["T*T", "T//7 + T//11", "B*(T - 400)//320"])
def test_what_has_another_form_is_not_found(text):
    formula = Formula(text)
    base = {"B": 3, "T": 1600}
    found = fit(lambda sizes: formula.value(sizes), base, {"B": 1, "T": 1})
    assert found is None or all(
        found.evaluate(B=b, T=t) == formula.evaluate(B=b, T=t) for b in range(1, 9) for t in range(1000, 9000, 37)
    )


def test_few_sizes_are_enough_where_more_cannot_be():
    formula = Formula("(T - 400)//320 + 1")
    found = fit(lambda sizes: formula.value(sizes) if sizes["T"] < 64_000 else None, {"T": 16_000}, {"T": 1})
    assert found == formula
    assert fit(lambda sizes: None, {"T": 5}, {"T": 1}) is None
