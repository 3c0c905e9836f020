"""Numbers of operations, against torch's own counter where it counts, and never 0 where there is work."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from avlib import shapes


def flops(fn, *args, **kwargs):
    return shapes.trace(fn, *args, kwargs=kwargs).flops


def counted(fn, *args, **kwargs) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        fn(*args, **kwargs)
    return counter.get_total_flops()


r = torch.randn
SAME = {
    "linear": (F.linear, r(3, 5, 8), r(6, 8), r(6)),
    "matmul": (torch.matmul, r(4, 3, 8), r(8, 6)),
    "@": (lambda a, b: a @ b, r(4, 3, 8), r(4, 8, 6)),
    "mm": (torch.mm, r(3, 8), r(8, 6)),
    "bmm": (torch.bmm, r(2, 3, 8), r(2, 8, 6)),
    "addmm": (torch.addmm, r(6), r(3, 8), r(8, 6)),
    "baddbmm": (torch.baddbmm, r(2, 3, 6), r(2, 3, 8), r(2, 8, 6)),
    "einsum": (torch.einsum, "bqd,bkd->bqk", r(2, 3, 8), r(2, 5, 8)),
    "einsum with dots": (torch.einsum, "...qd,...kd->...qk", r(2, 4, 3, 8), r(2, 4, 5, 8)),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 2), r(2, 3, 8), r(3, 8, 5)),
    "conv1d": (F.conv1d, r(2, 4, 30), r(6, 2, 5), None, 2, 1, 1, 2),
    "conv2d": (nn.Conv2d(3, 6, 3, padding=1), r(2, 3, 9, 9)),
    "transposed": (nn.ConvTranspose1d(4, 6, 5, 3), r(2, 4, 11)),
    "attention": (F.scaled_dot_product_attention, r(2, 3, 5, 8), r(2, 3, 7, 8), r(2, 3, 7, 8)),
    "multi-head attention": (nn.MultiheadAttention(8, 2, batch_first=True), r(2, 5, 8), r(2, 7, 8), r(2, 7, 8)),
    "encoder layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train(), r(2, 5, 8)),
    "nothing but values": (lambda x: F.layer_norm(x, (8,)).softmax(-1).sum(), r(3, 8)),
    "named": (lambda x, w: F.linear(input=x, weight=w), r(3, 8), r(6, 8)),
}


@pytest.mark.parametrize("name", SAME)
def test_as_torchs_counter_counts(name):
    fn, *args = SAME[name]
    with torch.no_grad():
        expected = counted(fn, *args)
        assert flops(fn, *args) == expected and (expected > 0 or name == "nothing but values")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks(kind):
    network = kind(6, 5, num_layers=2, bidirectional=True, batch_first=True)
    matrices = sum(p.numel() for p in network.parameters() if p.dim() == 2)
    assert flops(network, r(3, 7, 6)) == 2 * 3 * 7 * matrices
    packed = nn.utils.rnn.pack_padded_sequence(r(3, 7, 6), torch.tensor([7, 4, 2]), batch_first=True)
    assert flops(network, packed) == 2 * 13 * matrices
    cell = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}[kind](6, 5)
    assert flops(cell, r(3, 6)) == 2 * 3 * sum(p.numel() for p in cell.parameters() if p.dim() == 2)


def test_fourier_transforms():
    window = torch.hann_window(64)
    spectrum = torch.stft(r(2, 640), 64, 16, window=window, return_complex=True)
    assert flops(lambda x: torch.stft(x, 64, 16, window=window, return_complex=True), r(2, 640)) == 2 * 41 * 960
    assert flops(lambda s: torch.istft(s, 64, 16, window=window), spectrum) == 2 * 41 * 960
    assert flops(torch.fft.rfft, r(3, 64)) == 3 * 960 and flops(torch.fft.fft, r(3, 64), 128) == 3 * 4480


def test_attention_lstm_and_stft_are_not_free_at_another_size():
    trace = shapes.trace(nn.LSTM(6, 5, batch_first=True), r(3, 7, 6), dims="B T 6")
    assert trace.at(T=14).flops == 2 * trace.flops > 0
    trace = shapes.trace(lambda q: F.scaled_dot_product_attention(q, q, q), r(1, 2, 5, 8), dims="B 2 T 8")
    assert trace.at(T=10).flops == 4 * trace.flops > 0


@pytest.mark.parametrize(
    "fn",
    [torch.linalg.svd, torch.fft.fft2, lambda x: torch.cdist(x, x), lambda x: torch.einsum("ij,jk,kl->il", x, x.T, x)],
)
def test_what_is_not_known_is_unknown(fn):
    trace = shapes.trace(lambda x: (fn(x), x @ x.T), r(4, 6))
    assert trace.flops is None and trace[0].flops_at_least == 2 * 4 * 4 * 6


def test_custom_operations_are_unknown_until_their_author_tells():
    @torch.library.custom_op("avlib_test::scaled", mutates_args=())
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert flops(lambda x: torch.ops.avlib_test.scaled(x), r(4, 6)) is None

    @register_flop_formula(torch.ops.avlib_test.scaled)
    def scaled_flops(shape, *, out_shape=None) -> int:
        return shape[0] * shape[1]

    assert flops(lambda x: torch.ops.avlib_test.scaled(x), r(4, 6)) == 24
    assert flops(lambda x: torch.ops.aten.mm(x, x.T), r(4, 6)) == 2 * 4 * 4 * 6
