"""What is in a tensor, a batch, an output."""

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sample_traces import STRANGE
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from avlib import shapes


def test_one_tensor():
    x = torch.tensor([[0.0, 1.0, float("nan")], [float("inf"), -3.0, 2.0]])
    found = shapes.summary(x)
    (info,) = found.tensors
    assert info.shape == (2, 3) and info.statistics.min == -3 and info.statistics.mean == 0
    assert (info.statistics.nan, info.statistics.inf, info.statistics.first_bad) == (1, 1, (0, 2)) and not found.finite
    text = str(found)
    assert text.startswith("Tensor: 1 tensor, 24 B") and "-3 … 2" in text and "1 NaN 1 Inf" in text
    assert "first value that is not finite: at (0, 2)" in text and "cpu" in text
    assert "data:image/png;base64," in found._repr_html_() and "<svg" in shapes.summary(torch.arange(9))._repr_html_()


def test_nested_things():
    @dataclass
    class Output:
        tokens: Tensor
        loss: float = 0.5

    batch = {
        "audio": torch.ones(2, 5),
        "more": [torch.zeros(3), (torch.zeros(2, 2), "text")],
        "out": Output(torch.ones(1)),
    }
    found = shapes.summary(batch)
    assert [info.path for info in found.tensors] == ["audio", "more[0]", "more[1][0]", "out.tokens"]
    assert found.others == 2 and "4 tensors" in str(found) and "2 others" in str(found)
    assert found["audio"].shape == (2, 5)
    from transformers.modeling_outputs import BaseModelOutput

    output = BaseModelOutput(last_hidden_state=torch.ones(1, 2, 3), hidden_states=(torch.ones(1, 2, 3),) * 2)
    paths = [info.path for info in shapes.summary(output).tensors]
    assert paths == ["last_hidden_state", "hidden_states[0]", "hidden_states[1]"]


def odd() -> dict[str, object]:
    with warnings.catch_warnings(), FakeTensorMode():
        fake = torch.zeros(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8)
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        csr = torch.eye(3).to_sparse_csr()
    return {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "complex": torch.tensor([3 + 4j, 0j]),
        "int64": torch.arange(5),
        "uint8": torch.zeros(2, 2, dtype=torch.uint8),
        "bfloat16": torch.ones(3, 3, dtype=torch.bfloat16),
        "float16": torch.ones(3, 3, 3, dtype=torch.float16),
        "meta": torch.empty(3, device="meta"),
        "fake": fake,
        "quantised": quantised,
        "sparse": torch.eye(3).to_sparse(),
        "csr": csr,
        "nested": nested,
        "numpy": np.arange(6.0).reshape(2, 3),
        "backwards": np.arange(6.0)[::-1],
        "text": np.array(["a"]),
        "attention": torch.full((1, 2, 4, 4), 0.25),
        "needs a gradient": torch.ones(3, requires_grad=True) * 2,
        STRANGE: torch.ones(2),
        "strided": torch.arange(10.0)[::3],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def test_values_are_read_only_where_there_are_some():
    found = shapes.summary(odd())
    told = {info.path: (info, why) for info, why in zip(found.tensors, found.why, strict=True)}
    words = {"empty": "empty", "meta": "no values", "fake": "no values", "quantised": "quantised", "nested": "nested"}
    for name, word in (words | {"sparse": "sparse_coo", "csr": "sparse_csr"}).items():
        assert told[name][0].statistics is None and told[name][1] == word
    assert told["complex"][0].statistics.max == 5 and told["bool"][0].statistics.mean == 0.5
    assert told["backwards"][0].statistics.max == 5 and told["numpy"][0].shape == (2, 3) and "text" not in told
    assert told["nested"][0].shape == (2, None) and told["scalar"][0].shape == () and told["attention"][0].picture
    assert found.others == 1 and all(line.rstrip() == line for line in str(found).splitlines())
    page = found._repr_html_()
    assert "<script" not in page and "data:image/png;base64," in page and "sparse_coo" in page


@pytest.mark.parametrize(
    "thing", [None, 3, "text", {}, [], (), object(), {"a": {"b": 1}}], ids=lambda thing: type(thing).__name__
)
def test_things_without_tensors(thing):
    found = shapes.summary(thing)
    assert not found.tensors and "0 tensors" in str(found) and found.finite and found._repr_html_()


def test_nothing_is_changed():
    x = torch.randn(4, 5, requires_grad=True)
    array = np.ones(3)
    array.flags.writeable = False
    before = x.detach().clone()
    shapes.summary([x, array])
    assert torch.equal(x, before) and x.grad is None and x._version == 0 and array.sum() == 3


def test_many_tensors_stay_readable():
    found = shapes.summary([torch.ones(1)] * 1000)
    assert len(found.tensors) == 1000 and "… and 800 more" in str(found) and len(found._repr_html_()) < 100_000


def test_the_function_stays_callable():
    from avlib.shapes import summaries

    assert callable(shapes.summary) and shapes.summary is summaries.summary
