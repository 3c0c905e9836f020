"""Whatever people call a model can be traced, and is the same afterwards."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from avlib import shapes
from avlib.errors import ParameterError

pytestmark = pytest.mark.filterwarnings("ignore:.*(torch.jit|lazy module|Lazy modules).*")


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def paths(trace: shapes.Trace) -> list[str]:
    return [row.label for row in trace.modules]


def names(trace: shapes.Trace) -> list[str]:
    return [row.name for row in trace.ops()]


# what is recorded


def test_a_model_row_by_row():
    model, x = small(), torch.randn(3, 4)
    trace = shapes.trace(model, x, dims={"input": "B 4"})
    assert [(row.label, row.depth, row.kind) for row in trace] == [
        ("Sequential", 0, "module"),
        ("0", 1, "module"),
        ("linear", 2, "op"),
        ("1", 1, "module"),
        ("relu", 2, "op"),
        ("2", 1, "module"),
        ("linear", 2, "op"),
    ]
    first = trace["0"]
    assert first.inputs[0].path == "input" and first.outputs[0].formula == "(B, 8)" and first.parameters == 40
    assert first.inputs[0].dtype == "float32" and first.inputs[0].device == "cpu"
    assert trace.flops == 2 * 3 * (4 * 8 + 8 * 2) and trace.parameters == 58
    assert trace[2].bytes == 3 * 8 * 4 and trace[0].bytes == (3 * 8 + 3 * 8 + 3 * 2) * 4
    assert trace.output_shape == (3, 2) and trace.at(B=7).output_shape == (7, 2)
    assert trace.at(B=6).flops == 2 * trace.flops and trace.at(B=6)[0].bytes == 2 * trace[0].bytes
    assert trace[2].source.file == __file__ and "shapes.trace(model, x" in trace[2].source.code


def test_the_line_of_an_operation_is_that_of_the_model():
    def forward(x):
        y = x.reshape(2, -1)  # here
        return F.layer_norm(y, y.shape[-1:])

    trace = shapes.trace(forward, torch.randn(4, 6))
    assert names(trace) == ["reshape", "layer_norm"] and trace[0].name == "forward" and trace[0].path == ""
    assert trace.ops("reshape")[0].source.code == "y = x.reshape(2, -1)  # here"


def test_lines_of_helpers_are_skipped():
    from avlib.masking import random_mask
    from avlib.shapes import recorder

    recorder.HELPERS.add("avlib")  # as if it were einops
    recorder._known.clear()
    try:
        trace = shapes.trace(lambda x: random_mask(2, (4, 4), 0.5, noise=x).select(x[..., None]), torch.rand(2, 16))
    finally:
        recorder.HELPERS.discard("avlib")
        recorder._known.clear()
    assert {row.source.file for row in trace.ops()} <= {
        __file__,
        *(r.source.file for r in trace.ops() if "masking" in r.source.file),
    }


def test_einops_points_to_the_model():
    einops = pytest.importorskip("einops")
    trace = shapes.trace(lambda x: einops.rearrange(x, "b (h p) -> b h p", p=2), torch.randn(3, 8), dims="B T")
    assert {row.source.file for row in trace.ops()} == {__file__}
    assert trace.rows[0].outputs[0].formula == "(B, T//2, 2)"


# modules that are called in other ways


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.again = nn.Linear(3, 3), None

    def forward(self, x):
        for _ in range(3):
            x = self.cell(x)
        return x


def test_a_module_that_is_called_several_times():
    trace = shapes.trace(Recurrent(), torch.randn(2, 3))
    assert paths(trace) == ["Recurrent", "cell", "cell #2", "cell #3"]
    assert [row.parameters for row in trace.modules] == [0, 12, 0, 0]
    assert [row.shared for row in trace.modules] == [0, 0, 12, 12]
    assert trace["cell", 3].call == 3 and trace.parameters == 12
    assert [row.call for row in trace.ops()] == [1, 2, 3]


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    trace = shapes.trace(model, torch.tensor([[1, 2]]))
    assert trace.parameters == 15 and sum(row.parameters for row in trace) == 15 and trace["1"].shared == 15
    one = nn.Linear(3, 3)
    trace = shapes.trace(nn.Sequential(one, one), torch.randn(2, 3))
    assert paths(trace) == ["Sequential", "0", "0 #2"]


def test_a_module_called_by_forward_has_operations_and_no_row():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.unused = nn.Linear(3, 4), nn.Linear(1, 1)

        def forward(self, x):
            return self.inner.forward(x)

    trace = shapes.trace(Skips(), torch.randn(2, 3), dims={"x": "B 3"})
    assert paths(trace) == ["Skips"] and names(trace) == ["linear"] and trace.rows[0].outputs[0].formula == "(B, 4)"
    assert trace.rows[0].parameters == 16 and trace.notes == ["2 parameters belong to modules that were not called."]


def test_modules_that_are_not_registered_are_found():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2))]

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return nn.Tanh()(x)

    trace = shapes.trace(Hidden(), torch.randn(2, 3))
    assert paths(trace) == ["Hidden", "layers[0]", "layers[1]", "layers[1].0", "Tanh"]


def test_callables_and_what_they_hold():
    model = small()
    for fn in (lambda x: model(x), model.forward, model.__call__):
        trace = shapes.trace(fn, torch.randn(3, 4), dims="B 4")
        assert trace.rows[0].path == "" and trace.rows[0].outputs[0].formula == "(B, 2)"
        assert any(row.name == "Linear" for row in trace.modules) and hooks_of(model) == 0
    assert paths(shapes.trace(lambda x: model(input=x), torch.randn(3, 4)))[1:] == [
        "model",
        "model.0",
        "model.1",
        "model.2",
    ]


# inputs and outputs


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Output:
    hidden: list[Tensor]
    loss: Tensor | None
    name: str = "x"


@pytest.mark.parametrize(
    ("give", "leaves", "shape"),
    [
        (lambda x: x, ["(B, T)"], (2, 5)),
        (lambda x: (x, x.T), ["[0]", "[1]"], ((2, 5), (5, 2))),
        (lambda x: [x, (x.T, None)], ["[0]", "[1][0]"], [(2, 5), ((5, 2), None)]),
        (lambda x: {"a": x, "b": {"c": x.T, 3: x}}, ["a", "b.c", "b[3]"], {"a": (2, 5), "b": {"c": (5, 2), 3: (2, 5)}}),
        (lambda x: Pair(x, x.T), ["left", "right"], {"left": (2, 5), "right": (5, 2)}),
        (
            lambda x: Output([x, x.T], None),
            ["hidden[0]", "hidden[1]"],
            {"hidden": [(2, 5), (5, 2)], "loss": None, "name": None},
        ),
        (lambda x: None, [], None),
        (lambda x: 3.5, [], None),
        (lambda x: (x[i] for i in range(2)), ["[0]", "[1]"], [(5,), (5,)]),
        (lambda x: torch.distributions.Categorical(logits=x), ["logits", "_param"], None),
        (lambda x: x.unbind(0), ["[0]", "[1]"], ((5,), (5,))),
    ],
    ids=[
        "tensor",
        "tuple",
        "list",
        "dict",
        "namedtuple",
        "dataclass",
        "None",
        "number",
        "generator",
        "object",
        "unbind",
    ],
)
def test_outputs_of_any_kind(give, leaves, shape):
    trace = shapes.trace(give, torch.randn(2, 5), dims="B T")
    infos = trace.rows[0].outputs
    assert [info.path or info.formula for info in infos if info.path in leaves or not info.path] == leaves
    if shape is not None or not infos:
        assert trace.output_shape == shape
    assert all("?" not in info.formula for info in infos)


def test_a_model_output():
    from transformers.modeling_outputs import BaseModelOutput

    trace = shapes.trace(lambda x: BaseModelOutput(x, (x, x.T)), torch.randn(2, 5), dims="B T")
    assert [(o.path, o.formula) for o in trace.rows[0].outputs] == [
        ("last_hidden_state", "(B, T)"),
        ("hidden_states[0]", "(B, T)"),
        ("hidden_states[1]", "(T, B)"),
    ]
    assert trace.at(T=9).output_shape == {"last_hidden_state": (2, 9), "hidden_states": ((2, 9), (9, 2))}


def test_inputs_of_any_kind():
    def forward(batch, flag, *more, scale=1.0, mode="a", none=None):
        return batch["x"][0] * scale + more[0] if flag else batch["y"]

    batch = {"x": [torch.randn(2, 5)], "y": torch.ones(2, 5)}
    trace = shapes.trace(
        forward,
        batch,
        True,
        torch.randn(5),
        scale=torch.tensor(2.0),
        dims={"batch.x[0]": "B T", "batch.y": "B T", 2: "T"},
    )
    assert [info.path for info in trace.inputs] == ["batch.x[0]", "batch.y", "more[0]", "scale"]
    assert trace.rows[0].outputs[0].formula == "(B, T)"


def test_inputs_have_the_names_of_parameters():
    class Scaled:
        def __call__(self, spectrum, *more):
            return F.softmax(F.layer_norm(spectrum, (5,), weight=more[0]), -1) + torch.cat(more)

    trace = shapes.trace(Scaled(), torch.randn(2, 5), torch.ones(5))
    assert {row.name: [info.path for info in row.inputs] for row in trace} == {
        trace[0].name: ["spectrum", "more[0]"],
        "layer_norm": ["input", "weight"],
        "softmax": ["input"],
        "cat": ["[0][0]"],  # which tells nobody what its arguments are called
        "add": ["[0]", "[1]"],
    }


@pytest.mark.parametrize(
    ("file", "known", "told"),
    [
        ("/tmp/ipykernel_77/1234567.py", "In[3]", "cell [3]"),
        ("/tmp/ipykernel_77/1234567.py", None, "<cell>"),
        ("<ipython-input-12-0a1b2c>", None, "cell [12]"),
        ("/home/me/ipykernel_77.py", "In[3]", "/home/me/ipykernel_77.py"),
    ],
)
def test_a_cell_is_called_by_its_number(file, known, told, monkeypatch):
    compiler = SimpleNamespace(format_code_name=lambda name: ("Cell", known) if known else None)
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(compile=compiler))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    code = "import torch\ndef double(x):\n    if x.shape[0] > 9:\n        raise ValueError('long')\n    return x * 2\n"
    scope: dict = {}
    exec(compile(code, file, "exec"), scope)
    trace = shapes.trace(scope["double"], torch.randn(9, 2), dims={"x": "T 2"})
    assert str(trace.ops("mul")[0].source) == f"{told.rpartition('/')[2]}:5"  # no folders of this machine
    assert [(need.formula, need.file, need.line) for need in trace.requires] == [("T <= 9", told, 3)]
    assert f"{told.rpartition('/')[2]}:5" in trace.table(ops=True).__str__()
    with pytest.raises(ValueError, match="long") as caught:
        shapes.trace(scope["double"], torch.randn(10, 2))
    assert f"{told}:4" in caught.value.__notes__[0]


def test_no_tensor_input_and_integer_and_truth_inputs():
    trace = shapes.trace(lambda n: torch.zeros(n, 3), 4, dims={"n": "N"})
    assert trace.rows[0].outputs[0].formula == "(N, 3)" and trace.rows[0].inputs == ()
    trace = shapes.trace(nn.Embedding(9, 4), torch.randint(9, (2, 5)), dims="B T")
    assert trace.rows[0].outputs[0].formula == "(B, T, 4)" and trace.inputs[0].dtype == "int64"
    trace = shapes.trace(lambda m: m.logical_not() & m, torch.ones(2, 5).bool(), dims="B T")
    assert trace.rows[0].outputs[0].formula == "(B, T)" and trace.rows[0].outputs[0].dtype == "bool"


def test_keywords_that_are_options_here():
    def forward(x, fake, dims):
        return x * fake + dims

    trace = shapes.trace(
        forward, torch.randn(2, 3), kwargs={"fake": 2.0, "dims": torch.ones(3)}, dims={"x": "B T", "dims": "T"}
    )
    assert trace.rows[0].outputs[0].formula == "(B, T)"
    with pytest.raises(ParameterError, match="x given twice"):
        shapes.trace(forward, x=1, kwargs={"x": 2})


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"y": "B T"}, "'y', which is no tensor that was given; expected one of x"),
        ({"x": "B T C"}, r"'B T C' for 'x' of shape \(2, 5\); expected 2 names"),
        ({"x": "B B"}, "B is 5 in 'x' and 2 elsewhere"),
        ({"x": "B 6"}, "axis 1 of 'x' has size 5; expected 6"),
        ({"x": "B B+1"}, "expected B \\+ 1 = 3"),
        (7, "names by argument"),
    ],
)
def test_names_that_do_not_fit(dims, message):
    with pytest.raises(ParameterError, match=message):
        shapes.trace(lambda x: x, torch.randn(2, 5), dims=dims)


# what models do


def test_changes_in_place_are_rows_and_take_no_memory():
    def forward(x):
        y = x.clone()
        y.add_(1)
        y[:, 0] = 0
        z = y.view(-1)
        return z.relu_()

    trace = shapes.trace(forward, torch.randn(2, 5), dims="B T")
    assert names(trace) == ["clone", "add_", "__setitem__", "view", "relu_"]
    assert [row.bytes for row in trace.ops()] == [40, 0, 0, 0, 0] and trace.rows[0].outputs[0].formula == "(B*T,)"


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "enable_grad", "autocast"],
)
def test_modes(around):
    model, x = small(), torch.randn(3, 4)
    with around():
        expected = model(x)
        trace = shapes.trace(model, x, dims="B 4")
        with shapes.explain(model) as seen:
            got = model(x)
    assert trace.rows[0].outputs[0].formula == "(B, 2)" and torch.equal(got, expected) and hooks_of(model) == 0
    assert seen.rows[0].outputs[0].dtype == str(expected.dtype).removeprefix("torch.")
    assert got.requires_grad == expected.requires_grad and got.is_inference() == expected.is_inference()


def test_compiled_models():
    model, x = small(), torch.randn(3, 4)
    compiled = torch.compile(model, backend="eager")
    for warm in (False, True):
        if warm:
            compiled(x)
        trace = shapes.trace(compiled, x, dims={0: "B 4"})
        assert {"", "0", "1", "2"} <= {row.path for row in trace.modules} and "linear" in names(trace)
        assert trace.rows[0].outputs[0].formula == "(B, 2)"
    assert torch.equal(compiled(x), model(x)) and hooks_of(model) == 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    model, x = small(), torch.randn(3, 4, requires_grad=True)

    def step(x):
        return checkpoint(model, x, use_reentrant=reentrant)

    step(x).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with shapes.explain(model) as trace:
        step(x).sum().backward()
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))
    assert trace.modules[0].call == 1 and trace["", 2].call == 2  # forward, and again for the gradients
    assert shapes.trace(step, x, dims="B 4").rows[0].outputs[0].formula == "(B, 2)"


def test_ddp_with_one_process(tmp_path):
    from torch import distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(small())
        x = torch.randn(3, 4)
        expected = model(x)
        trace = shapes.trace(model, x, dims={0: "B 4"})
        assert paths(trace)[1:] == ["module", "module.0", "module.1", "module.2"]
        assert trace.rows[0].outputs[0].formula == "(B, 2)"
        with shapes.explain(model):
            got = model(x)
        got.sum().backward()
        assert torch.equal(got, expected) and all(p.grad is not None for p in model.parameters())
    finally:
        dist.destroy_process_group()


def test_meta_and_mixed_devices():
    with torch.device("meta"):
        model = small()
    trace = shapes.trace(model, torch.randn(3, 4, device="meta"), dims="B 4")
    assert trace.rows[0].outputs[0].formula == "(B, 2)" and trace.inputs[0].device == "meta"

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.scale = nn.Linear(4, 2, device="meta"), torch.ones(4)

        def forward(self, x):
            return self.linear((x * self.scale).to("meta"))

    trace = shapes.trace(Mixed(), torch.randn(3, 4), dims="B 4")
    assert trace.rows[0].outputs[0].device == "meta" and trace.ops("mul")[0].outputs[0].device == "cpu"
    assert trace.rows[0].outputs[0].formula == "(B, 2)"


def test_vmap_and_gradients_of_functions():
    model, x = small(), torch.randn(3, 4)
    trace = shapes.trace(torch.vmap(model), x)
    assert trace.output_shape == (3, 2) and trace["func.0"].outputs[0].shape == (8,)
    trace = shapes.trace(torch.func.grad(lambda x: model(x).sum()), x)
    assert trace.output_shape == (3, 4)


def test_a_training_step_leaves_no_gradient_in_runs_of_ours():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    twin = small()
    other = torch.optim.SGD(twin.parameters(), 0.1)
    x = torch.randn(3, 4)
    trace = shapes.trace(step, x, dims="B 4")
    twin(x).square().mean().backward()
    other.step()
    assert trace.rows[0].outputs[0].formula == "()"
    assert all(
        torch.equal(a, b) and torch.equal(a.grad, b.grad)
        for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )


def test_lazy_modules_become_real():
    lazy = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    trace = shapes.trace(lazy, torch.randn(2, 5), fake=True)
    assert trace.output_shape == (2, 3) and not trace.fake and "Lazy modules" in trace.notes[0]
    lazy = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    trace = shapes.trace(lazy, torch.randn(2, 5), dims="B T")
    assert type(lazy[0]) is nn.Linear and lazy[0].in_features == 5 and trace.rows[0].outputs[0].formula == "(B, 3)"
    assert [str(need.formula) for need in trace.requires] == ["T == 5"]


# the same afterwards


class Counts(nn.Module):
    """Changes itself in each of the ways in which models do."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(1))
        self.calls, self.cache, self.log, self.known = 0, None, [], {}
        self.state = type("State", (), {})()

    def forward(self, x):
        self.calls += 1
        self.seen += len(x)
        self.cache = x.mean(dim=0)
        self.log.append(self.cache)
        self.known[x.shape[0]] = x
        self.state.last = x
        return self.norm(x) + torch.rand(()) * 0


def test_runs_of_ours_leave_the_model_and_random_numbers_as_they_were():
    model, x = Counts(), torch.randn(3, 4)
    torch.manual_seed(1)
    twin = Counts()
    expected, after = twin(x), torch.rand(())
    torch.manual_seed(1)
    trace = shapes.trace(model, x, dims="B 4")
    assert trace.rows[0].outputs[0].formula == "(B, 4)" and torch.equal(torch.rand(()), after)
    assert model.calls == 1 and len(model.log) == 1 and list(model.known) == [3] and torch.equal(model.seen, twin.seen)
    assert type(model.cache) is Tensor and torch.equal(model.cache, twin.cache) and model.state.last is x
    assert int(model.norm.num_batches_tracked) == 1
    assert torch.equal(model.norm.running_mean, twin.norm.running_mean) and expected.shape == (3, 4)
    assert all(type(tensor) in (Tensor, nn.Parameter) for tensor in model.state_dict(keep_vars=True).values())


def test_gradients_are_those_of_an_untraced_run():
    model, twin = small(), small()
    x = torch.randn(3, 4)
    with shapes.explain(model):
        got = model(x)
    got.sum().backward()
    twin(x).sum().backward()
    assert torch.equal(got, twin(x))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_trace_keeps_no_tensor_alive():
    model = small()
    x = torch.randn(3, 4)
    alive = weakref.ref(x)
    trace = shapes.trace(model, x, dims="B 4")
    del x
    gc.collect()
    assert len(trace) == 7 and alive() is None


def test_a_fused_layer_says_that_it_is_not_fused_while_traced():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad():
        trace = shapes.trace(layer, torch.randn(2, 5, 8), dims="B T 8")
    assert any("slower way" in note for note in trace.notes) and trace.rows[0].outputs[0].formula == "(B, T, 8)"
    assert trace.flops > 0


def test_script_modules_are_one_row_with_unknown_work():
    script = torch.jit.script(nn.Linear(4, 3))
    trace = shapes.trace(nn.Sequential(script, nn.ReLU()), torch.randn(2, 4))
    assert trace["0"].flops is None and trace.flops is None and any("TorchScript" in note for note in trace.notes)
    assert trace.output_shape == (2, 3)


# models that look at values


def test_numpy_falls_back_to_real_and_says_so():
    def forward(x):
        return torch.from_numpy(x.numpy() * 2)[:, ::2]

    trace = shapes.trace(forward, torch.randn(3, 10), dims="B T")
    assert trace.rows[0].outputs[0].formula == "(B, (T - 1)//2 + 1)"
    assert any("looks at values" in note and "real" in note for note in trace.notes)
    trace = shapes.trace(forward, torch.randn(3, 10), fake=True)
    assert trace.output_shape == (3, 5) and not trace.fake and any("not fake" in note for note in trace.notes)


def test_branches_on_data_fall_back_to_real_and_say_so():
    def forward(x):
        if x.sum() > 0:
            return x[:, ::2]
        return x

    trace = shapes.trace(forward, torch.ones(3, 10), dims="B T")
    formula = trace.rows[0].outputs[0].formula
    assert any("looks at values" in note for note in trace.notes)
    assert formula in ("(B, (T - 1)//2 + 1)", "(B, ?)")  # with other values it may go the other way


def test_sizes_that_depend_on_values_are_not_taken_for_numbers():
    def forward(x, lengths):
        return x[:, : int(lengths.numpy().max())]

    trace = shapes.trace(forward, torch.randn(3, 10), torch.tensor([4, 7, 5]), dims={"x": "B T", "lengths": "B"})
    assert trace.rows[0].outputs[0].formula == "(B, ?)"


def test_a_model_that_branches_on_a_size_is_refused_where_no_formula_holds():
    def forward(x):
        return x.repeat(1, 2) if x.shape[1] > 300 else x[:, ::3]

    trace = shapes.trace(forward, torch.randn(2, 100), dims="B T")
    assert trace.rows[0].outputs[0].formula == "(B, (T - 1)//3 + 1)" and trace.at(T=300).output_shape == (2, 100)
    assert [need.formula for need in trace.requires] == ["T <= 300"]
    with pytest.raises(ParameterError, match="T <= 300"):
        trace.at(T=400)


# many rows, threads, traces in traces


def test_ten_thousand_rows():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Identity() for _ in range(2000))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x) + 1
                x = x * 2 - 1
                x = x.relu()
            return x

    trace = shapes.trace(Deep(), torch.randn(2, 3))
    assert len(trace) == 10_001 and trace.output_shape == (2, 3)
    assert len(trace.children(trace[0])) == 10_000


def test_two_threads_on_one_model():
    model = small()
    model.wait = threading.Barrier(2)
    results: dict[int, shapes.Trace] = {}

    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.barrier = small(), threading.Barrier(2, timeout=60)

        def forward(self, x, wait=True):
            self.meet(x)
            return self.model(x)

        def meet(self, x):
            if type(x) is Tensor and x.shape[0] in (2, 5):
                self.barrier.wait()

    both = Waits()
    x = {2: torch.randn(2, 4), 5: torch.randn(5, 4)}
    expected = {size: both.model(tensor) for size, tensor in x.items()}

    def work(size: int) -> None:
        with shapes.explain(both) as trace:
            assert torch.equal(both(x[size]), expected[size])
        results[size] = trace

    threads = [threading.Thread(target=work, args=(size,)) for size in x]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for size in x:
        assert len(results[size]) == 8 and results[size].modules[-1].outputs[0].shape == (size, 2)
    assert hooks_of(both) == 0


def test_two_threads_with_formulas():
    model, results = small(), {}

    def work(size: int) -> None:
        results[size] = shapes.trace(model, torch.randn(size, 4), dims="B 4")

    threads = [threading.Thread(target=work, args=(size,)) for size in (2, 5, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert {size: trace.rows[0].outputs[0].formula for size, trace in results.items()} == dict.fromkeys(
        (2, 5, 3), "(B, 2)"
    )
    assert hooks_of(model) == 0


def test_a_trace_within_a_trace():
    model, inner = small(), []

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            inner.append(shapes.trace(self.model, x))
            return self.model(x)

    outer = Outer()
    trace = shapes.trace(outer, torch.randn(3, 4))
    assert len(inner[0]) == 7 and inner[0].output_shape == (3, 2) and trace.output_shape == (3, 2)
    assert {"model", "model #2"} <= set(paths(trace)) and hooks_of(outer) == 0
    x = torch.randn(3, 4)
    with shapes.explain(outer) as seen:
        outer(x)
    assert seen.rows[0].name == "Outer"


# options


def test_seconds_and_statistics():
    model = small()
    x = torch.randn(3, 4)
    x[1, 2] = torch.nan
    trace = shapes.trace(model, x, seconds=True, stats=True)
    assert all(row.seconds >= 0 for row in trace) and trace[0].seconds >= trace["0"].seconds
    bad = trace.inputs[0].statistics
    assert bad.nan == 1 and bad.first_bad == (1, 2) and not bad.finite and trace.first_bad.name == "linear"
    assert shapes.trace(model, x)[0].outputs[0].statistics is None
    plain = shapes.trace(model, torch.ones(3, 4), stats=True)
    stats = plain.inputs[0].statistics
    assert (stats.min, stats.max, stats.mean, stats.std, stats.first_bad) == (1.0, 1.0, 1.0, 0.0, None)
    assert plain.first_bad is None


def test_fake_traces_need_no_values():
    model = small()
    trace = shapes.trace(model, torch.randn(3, 4), fake=True, dims="B 4")
    assert (
        trace.fake
        and trace.output_shape == (3, 2)
        and trace.flops == 288
        and trace.rows[0].outputs[0].formula == "(B, 2)"
    )
    assert all(type(p) is nn.Parameter for p in model.parameters())


def test_models_that_are_built_without_values():
    trace = shapes.trace_build(lambda: nn.Linear(200_000, 100_000), torch.randn(2, 200_000), dims={"input": "B 200000"})
    assert trace.parameters == 20_000_100_000 and trace.rows[0].outputs[0].formula == "(B, 100000)"
    assert trace.at(B=64).output_shape == (64, 100_000)
