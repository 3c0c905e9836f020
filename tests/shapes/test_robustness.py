"""Odd models and inputs: traced all the same, or refused with a sentence."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from avlib import shapes
from avlib.errors import ParameterError

pytestmark = pytest.mark.filterwarnings("ignore:.*(torch.jit|nested).*")


def test_a_free_name_follows_from_a_formula():
    trace = shapes.trace(nn.Conv1d(3, 4, 3, 2, 1), torch.randn(2, 3, 68), dims="B 3 16*N+4")
    assert trace.dims == {"B": 2, "N": 4} and trace.output.formula == "(B, 4, 8*N + 2)"
    with pytest.raises(ParameterError, match="expected 16"):
        shapes.trace(nn.Conv1d(3, 4, 3), torch.randn(2, 3, 70), dims="B 3 16*N+4")


def test_an_empty_batch():
    trace = shapes.trace(nn.Linear(4, 2), torch.randn(0, 5, 4), dims="B T 4")
    assert trace.output.formula == "(B, T, 2)" and trace.output.shape == (0, 5, 2)


def test_an_attribute_that_hides_a_method_of_torch():
    class Hides(nn.Module):
        def __init__(self):
            super().__init__()
            self.modules, self.inner = [1], nn.Linear(4, 2)

        def forward(self, x):
            return self.inner(x)

    assert shapes.trace(Hides(), torch.randn(3, 4), dims="B 4").output.formula == "(B, 2)"


def test_a_script_has_an_output_and_its_parameters():
    script = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    trace = shapes.trace(script, torch.randn(5, 4), dims="B 4")
    assert trace.output.shape == (5, 3) and trace.output.formula == "(B, 3)" and trace.root.parameters == 15


def test_a_jagged_input_has_no_formulas_and_says_why():
    jagged = torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(5, 4)], layout=torch.jagged)
    trace = shapes.trace(lambda x: x * 2, jagged, dims="B _ 4")
    assert trace.output.formula == "(?, ?, ?)" and "Jagged" in trace.notes[0]


@pytest.mark.parametrize(
    "call", [lambda: shapes.trace(torch.zeros(3)), lambda: shapes.trace(abs, 1, dims=torch.ones(2))]
)
def test_a_tensor_in_the_place_of_something_else(call, unchecked):
    with pytest.raises(ParameterError, match=r"a [Tt]ensor"):
        call()


def test_masked_attention_is_not_computed_at_far_sizes():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1).eval()
    mask = torch.zeros(2, 10, dtype=torch.bool)
    inputs = {"src": torch.randn(2, 10, 8), "src_key_padding_mask": mask}
    trace = shapes.trace(encoder, kwargs=inputs, dims={"src": "B T 8", "src_key_padding_mask": "B T"})
    assert trace.output.formula == "(B, T, 8)" and max(trace.checked["T"]) <= 64


def test_an_output_and_a_module_of_one_name_stay_two():
    class Body(nn.Sequential):
        def forward(self, x):
            return {"0": self[1](self[0](x))}

    body = Body(nn.Conv1d(1, 2, 3), nn.Conv1d(2, 2, 3))
    trace = shapes.trace(nn.Sequential(body), torch.randn(2, 1, 20), dims="B 1 T")
    found = trace.formulas()
    assert found["0.0"] == "(B, 2, T - 2)" and found["0['0']"] == "(B, 2, T - 4)"


def test_weights_count_in_the_row_that_uses_them():
    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.listed = nn.ParameterList([nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))])
            self.plain, self.table = [nn.Parameter(torch.randn(4, 3))], nn.Embedding(10, 3)

        def forward(self, x):
            for weight in self.listed:
                x = x @ weight
            return x @ self.plain[0] @ self.table.weight.T

    trace = shapes.trace(Holds(), torch.randn(2, 4), dims="B 4")
    assert trace.parameters == trace.root.parameters == 16 + 16 + 12 + 30 and not trace.notes
    assert trace.flops == 2 * 2 * (4 * 4 + 4 * 4 + 4 * 3 + 3 * 10)


def test_words_inside_other_words_are_no_unknown_work():
    linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert shapes.trace(lambda x: linear(x).sqrt().rsqrt(), torch.rand(2, 4)).flops == 2 * 2 * 4 * 3
    assert shapes.trace(torch.linalg.eigh, torch.eye(3)).flops is None


def test_grids_of_any_size():
    trace = shapes.trace(
        lambda t, x: F.affine_grid(t, x.shape, align_corners=False),
        torch.zeros(2, 2, 3),
        torch.zeros(2, 1, 5, 4),
        dims={"t": "B 2 3", "x": "B 1 H 4"},
    )
    assert trace.output.formula == "(B, H, 4, 2)"


@functools.lru_cache
def table(length):
    return torch.ones(length)


TABLES = {}


def tabled(x):
    if x.shape[1] not in TABLES:
        TABLES[x.shape[1]] = torch.zeros(x.shape[1])
    return x * table(x.shape[1]) + TABLES[x.shape[1]]


def test_caches_keep_nothing_of_further_runs():
    assert shapes.trace(tabled, torch.randn(2, 9), dims="B T").output.formula == "(B, T)"
    assert TABLES.keys() == {9} and type(table(10)) is type(table(9)) is torch.Tensor


def cached(function):
    inner = functools.lru_cache(function)
    return lambda *args: inner(*args)


@cached
def arranged(length):
    return torch.arange(length)


def test_a_cache_inside_a_decorator_takes_symbols_and_keeps_no_fake_tensor():
    trace = shapes.trace(lambda x: x + arranged(x.shape[1]), torch.randn(2, 50), dims="B T")
    assert trace.output.formula == "(B, T)" and not any("values" in note for note in trace.notes)
    assert all(type(arranged(length)) is torch.Tensor for length in range(1, 300))


def test_a_run_that_raises_refutes_no_formula():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ids", torch.arange(64)[None])

        def forward(self, x):
            return x + self.ids[:, : x.shape[1]]

    trace = shapes.trace(Positions(), torch.randn(2, 16), dims="B T")
    assert trace.requires[0].formula == "T <= 64"
    assert not any(None in info.formulas for row in trace.rows for info in row.outputs)


def test_a_square_is_no_requirement_of_one_size():
    def unpatched(x):
        if x.shape[1] != 8 or x.shape[2] != 8:
            x = x * 2
        side = int((x.shape[1] * x.shape[2]) ** 0.5)
        return x.reshape(-1, side, side)

    trace = shapes.trace(unpatched, torch.randn(3, 8, 8), dims="B H W")
    assert trace.at(B=2, H=12, W=12).output.shape == (2, 12, 12)
