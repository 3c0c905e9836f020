"""Networks of published size on CUDA tensors of torch's FakeTensorMode, which have no values: shapes, dtypes, devices.

Numbers are compared on small ones, see test_models_on_pretended_cuda.py.
"""

import sys

import pytest
import torch
from pretending import Pretending, autocast
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.func import functional_call

from avlib.features import lengths
from avlib.models.audiotoken import AudioTokenEmbedder
from avlib.models.cav_mae import CAVMAE, CAVMAEClassifier

# Name: builder, shapes of the inputs (a number: whole numbers below it), keywords, shape of the first output.
CASES = {
    "CAV-MAE": (CAVMAE, [(2, 1024, 128), (2, 3, 224, 224)], {}, ()),
    "CAV-MAE, tuned": (lambda: CAVMAEClassifier(527), [(2, 1024, 128), (2, 3, 224, 224)], {}, (2, 527)),
    "AudioToken": (AudioTokenEmbedder, [(2, 248, 2304)], {}, (2, 768)),
}
# The only place that may look at values: it refuses wrong inputs, and assumes here that they are right.
LISTED = {"all_hold": lambda conditions: True}


@pytest.fixture
def assumed(monkeypatch, unchecked):
    for name, answer in LISTED.items():
        for module in [module for key, module in sys.modules.items() if key.startswith("avlib")]:
            if getattr(module, name, None) is getattr(lengths, name):
                monkeypatch.setattr(module, name, answer)


def fake(model):
    """Parameters and buffers on the GPU, without values."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: torch.empty_like(tensor, device="cuda") for name, tensor in tensors.items()}


@pytest.mark.long
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=["float32", "bf16", "fp16"])
@pytest.mark.parametrize("name", CASES)
def test_published_sizes(name, dtype, assumed):
    build, shapes, options, expected = CASES[name]
    with Pretending.allowed(), FakeTensorMode(allow_non_fake_inputs=True):
        model = build().eval()
        inputs = [torch.empty(shape, device="cuda") for shape in shapes]
        with autocast(dtype), torch.no_grad():
            out = functional_call(model, fake(model), tuple(inputs), options)
    first = out[0] if isinstance(out, tuple) else out
    assert first.shape == expected and first.device.type == "cuda"


def test_a_tensor_on_the_cpu_and_a_look_at_values_are_found():
    class Faulty(torch.nn.Module):
        def __init__(self, looks):
            super().__init__()
            self.scale, self.looks = torch.nn.Parameter(torch.ones(3)), looks

        def forward(self, x):
            return x * self.scale if self.looks and x.sum().item() else x + torch.zeros(3)

    found = {True: (DataDependentOutputException, "_local_scalar_dense"), False: (RuntimeError, "cuda:0 and cpu")}
    for looks, (error, text) in found.items():
        with FakeTensorMode():
            model, x = Faulty(looks), torch.empty(2, 3, device="cuda")
            with pytest.raises(error, match=text):
                functional_call(model, fake(model), (x,))
