"""Settings that check themselves: types, ranges and choices, each refused by the name of its field."""

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Annotated, Literal

import pytest
from pydantic import Field

from avlib.errors import ParameterError
from avlib.settings import Count, Positive, Share, changed, settings


@settings
class Part:
    steps: Count = 3
    rate: Positive = 1e-3
    share: Share = 0
    between: Annotated[float | int, Field(gt=0, lt=4)] = 1
    names: Sequence[str] = ()
    pad: Literal["longest", "max"] = "max"
    weights: Mapping[str, float | int] = field(default_factory=dict)
    limit: Count | None = None

    def __post_init__(self):
        if self.steps == 7:
            raise ParameterError("steps", "7", "anything but 7")


@settings
class Whole:
    first: Part = field(default_factory=Part)
    second: Part = field(default_factory=Part)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps: 0; expected 1 or more."),
        ({"steps": "x"}, "steps: found str 'x'; expected int, 1 or more."),
        ({"steps": True}, "steps: found bool True; expected int, 1 or more."),
        ({"steps": 2.5}, "steps: found float 2.5; expected int, 1 or more."),
        ({"steps": 7}, "steps: 7; expected anything but 7."),
        ({"rate": 0}, "rate: 0; expected more than 0."),
        ({"rate": float("inf")}, "rate: inf; expected more than 0."),
        ({"rate": float("nan")}, "rate: nan; expected more than 0."),
        ({"share": 1.5}, "share: 1.5; expected 0 to 1."),
        ({"between": 4}, "between: 4; expected more than 0 and less than 4."),
        ({"pad": "longst"}, "pad: 'longst'; expected one of 'longest', 'max'. Did you mean 'longest'?"),
        ({"names": 3}, "names: found int 3; expected Sequence[str]."),
        ({"weights": 3}, "weights: found int 3; expected Mapping[str, float | int]."),
        ({"limit": 0}, "limit: 0; expected 1 or more or None."),
        ({"rate": 10**30}, f"rate: {10**30}; expected a number within 64 bits."),
    ],
)
def test_a_value_that_does_not_fit_is_refused(values, message):
    for refuse in (lambda: Part(**values), lambda: changed(Whole(), values), lambda: replace(Part(), **values)):
        with pytest.raises(ParameterError) as caught:
            refuse()
        assert str(caught.value) == message


def test_an_item_that_does_not_fit_is_named():
    with pytest.raises(ParameterError, match=r"weights\['a'\]: found str 'b'; expected float"):
        Part(weights={"a": "b"})
    with pytest.raises(ParameterError, match=r"names\[1\]: found int 3; expected str"):
        Part(names=["a", 3])


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(ParameterError, match=r"stpes: .*one of steps, rate"):
        Part(stpes=3)


def test_values_keep_their_types_and_the_dataclass_behaves_as_one():
    part = changed(Part(), {"rate": "2", "share": ".5", "limit": "4", "names": "a, b"})
    assert (type(part.rate), part.share, part.limit, part.names) == (int, 0.5, 4, ("a", "b"))
    assert pickle.loads(pickle.dumps(part)) == part == copy.deepcopy(part) == Part(**asdict(part))
    with pytest.raises(AttributeError):
        part.steps = 4


def test_a_value_given_by_its_place_is_refused_by_its_name():
    with pytest.raises(ParameterError, match="rate: 0; expected more than 0"):
        Part(3, 0)


def test_endless_numbers_and_texts_are_refused_in_short():
    for value in (10**400, 16**6000, f"1{'0' * 400}", "[" * 100_000):
        with pytest.raises(ParameterError, match=r"^rate: .{1,250}; expected .{1,30}$"):
            changed(Part(), {"rate": value})
    with pytest.raises(ParameterError, match="names: "):
        Part(names=[10**400])
