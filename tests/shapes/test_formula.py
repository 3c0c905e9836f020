"""Formulas: they hold what Python would compute, and are written so that they teach."""

import ast
import math
import random

import pytest
import torch

from avlib.errors import ParameterError
from avlib.shapes.dividing import reduced
from avlib.shapes.formula import Formula, Window, sizes
from avlib.shapes.symbols import Env

# What is read, and how it is written.
WRITTEN = {
    "8*((T-2800)//2560)+8": "8*((T - 2800)//2560 + 1)",
    "8*((1+(T-400)//160)//16)": "8*((T - 2800)//2560 + 1)",  # kaldi's frames in patches of 16
    "((T//80 - 3)//2 - 1)//2 + 1": "(T - 400)//320 + 1",  # HuBERT
    "T//5-1": "(T - 10)//5 + 1",
    "T//160+1": "T//160 + 1",
    "T//16": "T//16",
    "(3*T)//2": "(3*T)//2",
    "(160*T-1)//441+1": "(160*T - 1)//441 + 1",
    "ceil(160*T/441)": "(160*T - 1)//441 + 1",
    "(T+1)//2": "(T - 1)//2 + 1",
    "T + (-T)%160": "160*((T - 1)//160 + 1)",  # padded to a multiple
    "-160*((-T)//160)": "160*((T - 1)//160 + 1)",
    "(H//16)*(W//16)+1": "(H//16)*(W//16) + 1",
    "((H-3)//2+1)*((W-3)//2+1)+1": "((H - 3)//2 + 1)*((W - 3)//2 + 1) + 1",
    "8*(T//16)+(H//16)*(W//16)": "(H//16)*(W//16) + 8*(T//16)",
    "int(0.25*(H//16)*(W//16))": "((H//16)*(W//16))//4",
    "2*(T//16)+49": "2*(T//16) + 49",
    "8*((T - 240)//2560) + 196": "8*((T - 240)//2560) + 196",
    "int((1-0.7)*T)": "int((1 - 0.7)*T)",
    "int(1.7227*T)": "int(1.7227*T)",
    "int(2.5*T)": "(5*T)//2",
    "min(T, 512, H)": "min(512, H, T)",
    "max(T, 1)": "T",
    "min(T, T - 3)": "T - 3",
    "H*W//W": "H",
    "(H//16*16)//(H//16)": "16",
    "T//2 + (T+1)//2": "(T + 1)//2 + T//2",
    "2*T*S + 2*T": "2*T*(S + 1)",
    "5 - T": "5 - T",
    "(W-H)//2": "(W - H)//2",
    "3*(T//2)*(T//2)": "3*(T//2)**2",
    "B*(T//2)": "B*(T//2)",
    "1024": "1024",
    "T - T": "0",
    "(T + 7) % 4 // 1": "T - 4*((T - 1)//4) - 1",
}
POINTS = [
    {name: random.Random(seed).choice([37, 512, 9_999, 160_000]) + 13 * seed + i for i, name in enumerate("BTHWS")}
    for seed in range(40)
]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_formula_is_written_to_teach_and_stays_what_it_was(text):
    formula = Formula(text)
    assert str(formula) == WRITTEN[text]
    assert Formula(str(formula)) == formula
    python = compile(text.replace("ceil(160*T/441)", "-(-160*T//441)"), text, "eval")
    for point in POINTS:
        assert formula.evaluate(**point) == eval(python, {}, point)


def random_formula(choose: random.Random, depth: int = 3) -> str:
    if depth == 0:
        return choose.choice(["T", "H", "W", str(choose.randint(1, 9))])
    left, right = (random_formula(choose, depth - 1) for _ in range(2))
    return {
        0: f"({left} + {right})",
        1: f"({left} - {right})",
        2: f"({left} * {right})",
        3: f"({left} // {choose.randint(2, 6)})",
        4: f"max({left}, {right})",
        5: f"({left} % {choose.randint(2, 6)})",
        6: f"({left} // ({right} + 900))",
    }[choose.randint(0, 6)]


@pytest.mark.parametrize("seed", range(200))
def test_simplification_changes_no_value(seed):
    choose = random.Random(seed)
    text = random_formula(choose, depth=4)
    formula, python = Formula(text), compile(text, text, "eval")
    again = Formula(str(formula))
    for _ in range(20):
        point = {name: choose.randint(1, 300) for name in "THW"}
        try:
            value = eval(python, {}, point)
        except ZeroDivisionError:
            continue
        assert formula.evaluate(**point) == value == again.evaluate(**point), (text, str(formula), point)


def test_equality_is_that_of_numbers():
    assert Formula("T//2 + (T+1)//2") == Formula("T")
    assert hash(Formula("T//2 + (T+1)//2")) == hash(Formula("T"))
    assert Formula("T//2") != Formula("(T+1)//2")
    assert Formula("8*((T - 2800)//2560 + 1)") == Formula("8*(((T-400)//160 + 1)//16)")
    assert Formula("min(T, 1000000000)") != Formula("T - 1")
    assert Formula("(T//2)*(H//2)") != Formula("(T//2)*(H//2) + T//4000")
    assert Formula(3) == 3 and Formula("T") != 3 and Formula("T") != "T"


def test_arithmetic_and_substitution():
    T = Formula("T")
    assert str((T - 400) // 160 + 1) == "(T - 400)//160 + 1"
    assert str(2 * T + 1 - T) == "T + 1" and str(10 // T) == "10//T" and str(5 - T) == "5 - T" and str(T**2) == "T**2"
    assert Formula("(T - 400)//320 + 1").substitute(T="10*S") == Formula("(S - 40)//32 + 1")
    assert Formula("H//(H//16)").substitute(H="16*h") == 16
    assert Formula("(T - 400)//320 + 1").substitute(T=160000).constant == 499
    assert Formula("int(0.3*T) + min(T, H)").substitute(T=10, H=20) == 13
    assert Formula("T").names == ("T",) and Formula("H*W - H*W").names == ()


def test_what_cannot_be_evaluated_says_so():
    with pytest.raises(ParameterError, match="T not given"):
        Formula("T + B").evaluate(B=1)
    with pytest.raises(ParameterError, match="divides by 0"):
        Formula("T//(H//16)").evaluate(T=1, H=3)


@pytest.mark.parametrize(
    "text", ["", "T T", "open('x')", "T.real", "T/2", "0.5", "T**T", "True", "T//0", "lambda: 0", "'T'"]
)
def test_text_that_is_no_formula(text):
    with pytest.raises(ParameterError, match=r"formula: .*; expected sums"):
        Formula(text)


def test_symbols_of_torch():
    env = Env(lambda frame: frame)
    T, L = env.symbol("T", 1000), env.symbol("L", 77)

    def text(size: torch.SymInt) -> str:
        return str(size.node.what)

    assert text((T // 80 - 3) // 2) == "(T - 400)//160 + 1"
    assert text(torch.sym_int(0.25 * L)) == "L//4"
    assert text(math.ceil(160 * T / 441)) == "(160*T - 1)//441 + 1"
    assert text(T % 16) == "T - 16*(T//16)"
    assert text(torch.sym_max(1, torch.sym_max(T, L))) == "max(L, T)"
    assert text(torch.sym_int(torch.sym_sqrt(T))) == "None"  # no formula
    assert int(torch.sym_int(torch.sym_sqrt(T))) == 31
    assert T - T + 3 == 3 and T > 0 and not env.assumed  # true at every size: nothing is assumed
    assert T - L == 923 and not L > T  # by the sizes at hand
    assert [str(guard.relation.left) for guard in env.assumed] == ["T - L", "L"]


@pytest.mark.parametrize(
    ("text", "window", "meaning"),
    [
        (
            "(T - 2800)//2560 + 1",
            Window("T", 1, 2800, 2560),
            "one token per 160 ms; the first needs 175 ms; up to 159 ms at the end are dropped",
        ),
        (
            "8*((T - 2800)//2560 + 1)",
            Window("T", 8, 2800, 2560),
            "8 tokens per 160 ms; the first need 175 ms; up to 159 ms at the end are dropped",
        ),
        ("T//160 + 1", Window("T", 1, 160, 160, 1, 1), "one token per 10 ms; 1 more at any length"),
        (
            "(T - 1)//2 + 1",
            Window("T", 1, 1, 2),
            "one token per 0.125 ms; the first needs 0.0625 ms; what is left at the end is filled up",
        ),
        ("T - 1023", Window("T", 1, 1, 1, 1, -1023), "one token per 0.0625 ms"),
        ("(3*T)//2", Window("T", 1, 2, 2, 3), None),
        ("H*W", None, ""),
        ("49", None, ""),
    ],
)
def test_windows_and_what_they_mean(text, window, meaning):
    assert Formula(text).window == window
    if meaning is not None:
        assert Formula(text).meaning(sample_rate=16000) == meaning


def test_meaning_without_a_rate_counts():
    assert Formula("(T - 25)//10 + 1").meaning(unit="frame") == (
        "one frame per 10 of T; the first needs 25 of T; up to 9 of T at the end are dropped"
    )
    assert (
        Formula("T//48000").meaning(48000)
        == "one token per 1 s; the first needs 1 s; up to 999 ms at the end are dropped"
    )


def test_whole_shapes():
    expected = (Formula("B"), Formula("8*((T-2800)//2560+1)"), Formula(768))
    assert sizes("B 8*((T-2800)//2560 + 1) 768") == expected
    assert sizes("(B, 8*((T - 2800)//2560 + 1), 768)") == expected
    assert sizes("(T - 1)*(S - 1)") == (Formula("(T - 1)*(S - 1)"),)
    assert sizes("B _ ?") == (Formula("B"), None, None)
    assert sizes("(T,)") == (Formula("T"),) and sizes("") == ()


# Formulas that are shorter than what was asked for.
REDUCED = {
    "(7 - H % 7) % 7 + H": "7*((H - 1)//7 + 1)",  # padded to windows of 7
    "max(0, 2*((H + 1)//2) - H)": "2*((H + 1)//2) - H",
    "(H + max(2*((H + 1)//2) + 1 - H, 0) - 3)//2 + 1": "(H - 1)//2 + 1",  # a padding as TensorFlow's
    "(H - 8*(H//8))//8": "0",
    "(3*B*T*U + 3*B*U)//(B*T + B)": "3*U",
    "(B*T)//(B*U)": "T//U",
    "(6*T)//(4*U)": "(3*T)//(2*U)",
    "(T//2)//T": "0",
    "min(T, T//3)": "T//3",
    "max(1, T*U)": "T*U",
}


@pytest.mark.parametrize("text", REDUCED)
def test_reduced(text):
    assert str(Formula(text)) == REDUCED[text]


def _random_text(draw: random.Random, deep: int) -> str:
    if deep == 0:
        return draw.choice(["T", "U", "T", "U", str(draw.randint(1, 9))])
    a, b = _random_text(draw, deep - 1), _random_text(draw, draw.randrange(deep))
    number = draw.randint(1, 9)
    forms = (f"({a})//{number}", f"({a}) % {number}", f"max({a}, {b})", f"min({a}, {b})", f"({a}) + ({b})")
    forms += (f"({a}) - ({b})", f"({a})*({b})", f"({a})*({b})//(({b})*({a}))", f"-({a})//{number}")
    return draw.choice((*forms, f"({a})//(T + {number})", f"({a})//max(1, {b})"))


def test_reductions_change_no_value():
    draw, compared, bounded = random.Random(5), 0, 0
    for _ in range(600):
        text = _random_text(draw, draw.randint(1, 4))
        try:
            formula = Formula(text)
        except ParameterError:
            continue  # it divides by 0 at every size
        code = compile(ast.parse(text, mode="eval"), "text", "eval")
        for T, U in ((1, 1), (2, 3), *((draw.randint(1, 300), draw.randint(1, 300)) for _ in range(12))):
            try:
                right = eval(code, {"T": T, "U": U, "max": max, "min": min})
            except ZeroDivisionError:
                continue
            assert formula.value({"T": T, "U": U}) == right, f"{text} -> {formula} at {T=}, {U=}"
            compared += 1
            if formula.least is not None:
                assert right >= formula.least, f"{text} -> {formula} at {T=}, {U=}"
                bounded += 1
    assert compared > 5000 and bounded > 1000


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("3*(H//(H//8))*(W//(W//8))", "192"),
        ("8*(H//8)", "H"),
        ("((H - 1)//4 + 1)*2", "H//2"),
        ("B*(H//16)*(W//16)", "B*(H//16)*(W//16)"),
        ("(H//8)*(W//8)*64", "H*W"),
        ("(H//8 + 3)//4", "(H - 8)//32 + 1"),
    ],
)
def test_reduced_for_multiples(text, short):
    formula = reduced(Formula(text), {"H": 8, "W": 8})
    assert str(formula) == short
    for H, W in ((8, 16), (24, 8), (40, 56), (264, 1016)):
        right = eval(compile(ast.parse(text, mode="eval"), "text", "eval"), {"H": H, "W": W, "B": 3})
        assert formula.value({"H": H, "W": W, "B": 3}) == right
