"""Short everyday functions, written so that a tool that derives formulas may get them wrong."""

import dataclasses
import functools
import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

tab, tab2 = torch.randn(64, 8), torch.randn(1, 1, 128)
tripled, octupled = nn.ConvTranspose1d(1, 2, 5, 3, 1), nn.ConvTranspose1d(1, 2, 16, 8, 4)
same, halved = nn.Conv1d(1, 2, 4, padding="same"), nn.Conv2d(3, 4, 7, 2, 3)
recurrent = nn.GRU(1, 4, batch_first=True, bidirectional=True)
attention = nn.MultiheadAttention(4, 2, batch_first=True)


def window(x, w=32):
    pad = (w - x.shape[1] % w) % w
    return F.pad(x, (0, pad)).view(x.shape[0], -1, w)


def loop(x):
    out = []
    for i in range(0, x.shape[1], 40):
        out.append(x[:, i : i + 40].mean(1))  # noqa: PERF401
    return torch.stack(out, 1)


def branch(x):
    return x.repeat(1, 2) if x.shape[1] > 300 else x


def branch2(x):
    return x[:, : x.shape[1] // 2] if x.shape[1] % 2 == 0 else x


def item(x):
    return x[:, : int(x.abs().mean().item() * 10)]


def crop(x, n=256):
    x = x[:, :n] if x.shape[1] > n else F.pad(x, (0, n - x.shape[1]))
    return x


def centre(x):
    s = max(0, (x.shape[1] - 50) // 2)
    return x[:, s : s + 50]


def raises(x):
    assert x.shape[1] >= 10, "short"
    return x[:, 5:]


def np_len(x):
    return x.new_zeros(int(np.ceil(x.shape[1] / 3)))


@dataclasses.dataclass
class Out:
    a: Tensor
    b: list


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.cache = None

    def forward(self, x):
        if self.cache is None or self.cache.shape[0] < x.shape[1]:
            self.cache = torch.arange(x.shape[1]).float()
        return x + self.cache[: x.shape[1]]


class Pos(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Embedding(256, 8)
        self.register_buffer("ids", torch.arange(256)[None])

    def forward(self, x):
        return x[..., None] + self.p(self.ids[:, : x.shape[1]])


class Tril(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("bias", torch.tril(torch.ones(128, 128))[None, None])

    def forward(self, x):
        T = x.shape[1]
        a = x[:, None, :, None] * x[:, None, None, :]
        return a.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf")).softmax(-1)


def whiles(x):
    n = 0
    while x.shape[1] > 10:
        x = x[:, ::2]
        n += 1
    return x


def halves(x):
    out = []
    while x.shape[1] >= 4:
        out.append(x)
        x = F.avg_pool1d(x[:, None], 2)[:, 0]
    return out[-1] if out else x


def tryshape(x):
    try:
        return x.view(x.shape[0], -1, 4)
    except RuntimeError:
        return x[..., None]


def framed(x, n=25, hop=10):
    k = (x.shape[1] - n) // hop + 1
    return torch.stack([x[:, i * hop : i * hop + n] for i in range(k)], 1)


def overlap(x):
    frames = x.unfold(1, 20, 10)
    out = x.new_zeros(x.shape[0], (frames.shape[1] - 1) * 10 + 20)
    for i in range(frames.shape[1]):
        out[:, i * 10 : i * 10 + 20] += frames[:, i]
    return out


def multi(x):
    n = x.shape[-1]
    return F.pad(x, (0, -n % 64))


def mult2(x):
    return F.pad(x, (0, math.ceil(x.shape[1] / 48) * 48 - x.shape[1]))


def evenodd(x):
    return x[:, :-1] if x.shape[1] % 2 else x


def nest(x):
    return {"a": (x, {"b": [x[:, 1:], x[:, ::2]]}), "n": x.shape[1], "none": None}


def longest(x, y):
    n = max(x.shape[1], y.shape[1])
    return F.pad(x, (0, n - x.shape[1])) + F.pad(y, (0, n - y.shape[1]))


def shortest(x, y):
    n = min(x.shape[1], y.shape[1])
    return x[:, :n] + y[:, :n]


def gauss(x):
    k = int(2 * round(0.05 * x.shape[1]) + 1)
    return F.conv1d(F.pad(x[:, None], (k // 2, k // 2)), torch.ones(1, 1, k) / k)


def crop2(x):
    H, W = x.shape[-2:]
    s = min(H, W)
    top, left = (H - s) // 2, (W - s) // 2
    return x[..., top : top + s, left : left + s]


def resize_short(x, n=32):
    H, W = x.shape[-2:]
    size = (n, int(n * W / H)) if H < W else (int(n * H / W), n)
    return F.interpolate(x, size=size)


def win(x, w=7):
    B, C, H, W = x.shape
    ph, pw = (w - H % w) % w, (w - W % w) % w
    x = F.pad(x, (0, pw, 0, ph))
    H, W = H + ph, W + pw
    return x.view(B, C, H // w, w, W // w, w).permute(0, 2, 4, 3, 5, 1).reshape(-1, w * w, C)


def patch(x):
    B, C, _H, _W = x.shape
    return x.unfold(2, 16, 16).unfold(3, 16, 16).reshape(B, C, -1, 256)


def grid(x):
    _B, _C, H, W = x.shape
    ys, xs = torch.meshgrid(torch.arange(0, H, 8), torch.arange(0, W, 8), indexing="ij")
    return torch.stack([ys, xs], -1).reshape(-1, 2)


def levels(x):
    out = [x]
    for _ in range(3):
        out.append(F.avg_pool2d(out[-1], 2, ceil_mode=True))
    return out


def ratio(x):
    return F.interpolate(x, size=[int(s * 0.75) for s in x.shape[2:]])


def aspect(x):
    H, W = x.shape[2:]
    return x[..., :W] if H > W else x


def hops(x, w=48, h=17):
    n = max(0, x.shape[1] - w) // h + 1
    return torch.stack([F.pad(x, (0, w))[:, i * h : i * h + w] for i in range(n)], 1)


def seconds(x, rate=100):
    return x[:, : int(min(x.shape[1] / rate, 1.5) * rate)]


def third(x):
    return x[:, ::2] if x.shape[1] > 150 else (x[:, :20] if x.shape[1] > 50 else x)


def doubled(x, n=250):
    while x.shape[1] < n:
        x = torch.cat([x, x], 1)
    return x[:, :n]


def spectra(x):
    s = torch.stft(F.pad(x, (0, 256)), 64, 20, window=torch.ones(64), return_complex=True, center=False).abs()
    return s[..., : s.shape[-1] // 4 * 4].reshape(x.shape[0], 33, -1, 4).mean(-1)


def squared(x):
    H, W = x.shape[2:]
    return F.pad(x, (0, abs(H - W) if W < H else 0, 0, abs(H - W) if H < W else 0))


def centred(x, s=40):
    t, left = (max(round((n - s) / 2), 0) for n in x.shape[2:])
    return x[..., t : t + s, left : left + s]


def unshuffled(x):
    return F.pixel_unshuffle(x[..., : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4], 4)


def filled(x):
    while x.shape[1] % 8:
        x = F.pad(x, (0, 1))
    return x


def whole_pieces(x, n=30):
    pieces = x.split(n, 1)
    return torch.cat(pieces[:-1] if len(pieces) > 1 and pieces[-1].shape[1] < n else pieces, 1)


@functools.lru_cache
def counted(length, size=25, hop=10):
    return 1 + (length - size) // hop if length >= size else 0


@dataclasses.dataclass
class Frames:
    size: int = 25

    def __call__(self, x):
        return F.pad(x, (0, -x.shape[1] % self.size)).unflatten(1, (-1, self.size))


def five_crops(x, n=24):
    top, left = (round((size - n) / 2) for size in x.shape[2:])
    corners = [x[..., :n, :n], x[..., :n, -n:], x[..., -n:, :n], x[..., -n:, -n:]]
    return torch.stack([*corners, x[..., top : top + n, left : left + n]])


def relative_table(x, p=8):
    h, w = x.shape[2] // p, x.shape[3] // p
    return torch.zeros((2 * h - 1) * (2 * w - 1), 3)


def large(x):
    assert min(x.shape[2:]) > 24, "too small"
    return F.avg_pool2d(x, 2, padding=1)


SOUND = dict(
    filled=filled,
    whole_pieces=whole_pieces,
    counted=lambda x: x.new_zeros(counted(x.shape[1])),
    frames=Frames(),
    in_range=lambda x: x[:, 3:] if x.shape[1] in range(20, 200) else x,
    faded=lambda x: torch.cat([x[:, :-32], x[:, -32:] * torch.linspace(0, 1, 32)], 1),
    one_more=lambda x: x[:, : x.shape[1] // 10 + (x.shape[1] % 20 == 13)],
    hops=hops,
    seconds=seconds,
    third=third,
    doubled=doubled,
    spectra=spectra,
    split_last=lambda x: x.split(16, 1)[-1],
    split_number=lambda x: x.new_zeros(len(x.split(30, 1))),
    split_keys=lambda x: dict(enumerate(x.split(50, 1))),
    chunk_means=lambda x: torch.stack([c.mean(1) for c in x.chunk(6, 1)], 1),
    chunk_number=lambda x: x.new_zeros(len(x.chunk(8, 1))),
    split_places=lambda x: torch.tensor_split(x, [10, 50], 1)[2],
    columns=lambda x: [x[:, i] for i in range(0, x.shape[1], 30)],
    key_of_size=lambda x: {f"s{x.shape[1]}": x, "n": x[:, 1:]},
    number_as_key=lambda x: {x.shape[1]: x},
    from_150=lambda x: x[:, 150:],
    twice_less=lambda x: x[:, : 2 * x.shape[1] - 120],
    every_other_two=lambda x: x[:, torch.arange(x.shape[1]) % 4 < 2],
    above=lambda x: torch.zeros(x.shape[1], x.shape[1])[torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()],
    root_up=lambda x: x.new_zeros(math.isqrt(x.shape[1] - 1) + 1),
    half_up=lambda x: x[:, : x.shape[1] // 2 + x.shape[1] % 2],
    pairs_of=lambda x: torch.triu_indices(x.shape[1], x.shape[1], 1)[0],
    resampled=lambda x: F.interpolate(x[:, None], scale_factor=16000 / 44100, mode="linear"),
    wrapped=lambda x: torch.cat([x[:, 5:], x[:, :5]], 1),
    windows=lambda x: x.unfold(1, 9, 3).sum(-1).unfold(1, 4, 2),
    held=lambda x: x[:, : min(max(x.shape[1] - 20, 5), 60)],
    window=window,
    loop=loop,
    branch=branch,
    branch2=branch2,
    item=item,
    crop=crop,
    centre=centre,
    raises=raises,
    np_len=np_len,
    neg=lambda x: x[:, -20:-3],
    step=lambda x: x[:, 3::7],
    unfold=lambda x: x.unfold(1, 16, 5),
    emb=lambda x: F.embedding(torch.arange(x.shape[1]).clamp(max=63), tab),
    tab=lambda x: tab[: x.shape[1]],
    tabadd=lambda x: x[:, None] + tab2[..., : x.shape[1]] if x.shape[1] <= 128 else x[:, None],
    narrow=lambda x: x.narrow(1, 10, 20),
    topk=lambda x: x.topk(min(10, x.shape[1]), 1)[0],
    chunk4=lambda x: x.chunk(4, 1)[0],
    split3=lambda x: x.split(30, 1)[-1],
    tsplit=lambda x: torch.tensor_split(x, 3, 1)[1],
    nonzero=lambda x: x[x > 0],
    unique=lambda x: torch.unique((x * 3).int()),
    mask=lambda x: x.masked_select(x > 0),
    where=lambda x: torch.where(x > 0, x, 0.0),
    pool=lambda x: F.max_pool1d(x, 3, 2, ceil_mode=True),
    apool=lambda x: F.adaptive_avg_pool1d(x, 7),
    avgc=lambda x: F.avg_pool1d(x, 4, 3, 1, ceil_mode=True),
    stft=lambda x: torch.stft(x, 64, 16, return_complex=True, window=torch.hann_window(64)),
    interp=lambda x: F.interpolate(x[:, None], scale_factor=1 / 3),
    interp44=lambda x: F.interpolate(x[:, None], scale_factor=44100 / 16000),
    isz=lambda x: F.interpolate(x[:, None], size=int(x.shape[1] * 1.1)),
    refl=lambda x: F.pad(x, (20, 20), mode="reflect"),
    fold=lambda x: F.fold(F.unfold(x[:, None, None, :], (1, 4), stride=(1, 2)), (1, x.shape[1]), (1, 4), stride=(1, 2)),
    roll=lambda x: x.roll(3, 1),
    cart=lambda x: torch.cartesian_prod(x[0], x[0, :3]),
    tri=lambda x: torch.triu_indices(x.shape[1], x.shape[1]),
    diag=lambda x: torch.diag_embed(x).diagonal(5, -2, -1),
    comb=lambda x: torch.combinations(x[0, :20]),
    cumsum=lambda x: x.cumsum(1)[:, 1:] - x.cumsum(1)[:, :-1],
    bins=lambda x: torch.bincount((x[0] * 3).abs().long()),
    rep=lambda x: x.repeat_interleave(3, 1)[:, : 2 * x.shape[1]],
    arange=lambda x: torch.arange(0, x.shape[1], 16) + 3,
    lin=lambda x: torch.linspace(0, 1, x.shape[1] // 10 + 1),
    pow2=lambda x: F.pad(x, (0, 2 ** math.ceil(math.log2(x.shape[1])) - x.shape[1])),
    bitl=lambda x: x.new_zeros(x.shape[1].bit_length()),
    tobytes=lambda x: x.new_zeros(len(str(x.shape[1]))),
    gcd=lambda x: x.new_zeros(math.gcd(x.shape[1], 12)),
    tolist=lambda x: torch.tensor([1.0] * x.shape[1]),
    npz=lambda x: torch.from_numpy(np_len(x).numpy()),
    sqz=lambda x: x.squeeze(),
    view2=lambda x: x.view(-1, 4),
    flat=lambda x: x.flatten(),
    reshape=lambda x: x.reshape(x.shape[0], 2, -1),
    cat=lambda x: torch.cat([x, x[:, :10]], 1),
    stk=lambda x: torch.stack(x.unbind(1)[:3], 1),
    mx=lambda x: x[:, : max(x.shape)],
    rnd=lambda x: x[:, : round(x.shape[1] * 0.45)],
    sel=lambda x: x[:, torch.arange(0, x.shape[1], 3)],
    randperm=lambda x: x[:, torch.randperm(x.shape[1])[: x.shape[1] // 4]],
    drop=lambda x: x[:, torch.rand(x.shape[1]) > 0.5],
    tri2=lambda x: x[:, None, :] * torch.ones(x.shape[1], x.shape[1]).triu(),
    conv=lambda x: F.conv1d(x[:, None], torch.ones(1, 1, 9), stride=4, padding=2, dilation=3),
    convt=lambda x: F.conv_transpose1d(x[:, None], torch.ones(1, 1, 9), stride=4, padding=2, output_padding=1),
    gen=lambda x: (x[:, i:] for i in range(3)),
    dct=lambda x: {"a": x, 3: x[:, ::2]},
    nt=lambda x: torch.max(x, 1),
    sortd=lambda x: x.sort(1),
    hist=lambda x: torch.histc(x, 10),
    mean=lambda x: x.mean(),
    where1=lambda x: torch.where(x > 0),
    bool=lambda x: x if bool((x > 0).any()) else x[:, :1],
    eq=lambda x: x if torch.equal(x, x) else x[:1],
    tryx=lambda x: x[:, :50].view(-1, 50) if x.shape[1] >= 50 else x,
    rev=lambda x: x.flip(1)[:, 5:],
    nstep=lambda x: torch.from_numpy(x.numpy()[:, ::-1].copy()),
    nslice=lambda x: torch.from_numpy(x.numpy()[:, 50::-3].copy()),
    chunk3=lambda x: x.chunk(3, 1)[-1],
    chunk7=lambda x: torch.stack([c.mean(1) for c in x.chunk(7, 1)], 1),
    unf=lambda x: x.unfold(1, 25, 7).mean(-1),
    strided=lambda x: x.as_strided((x.shape[0], x.shape[1] // 2), (x.shape[1], 2)),
    ein=lambda x: torch.einsum("bt,bs->ts", x, x),
    ein2=lambda x: torch.einsum("bt,bt->b", x, x),
    itp=lambda x: F.interpolate(x[:, None], scale_factor=0.3),
    itp2=lambda x: F.interpolate(x[:, None], scale_factor=2.5, mode="linear", recompute_scale_factor=True),
    itp3=lambda x: F.interpolate(x[:, None], scale_factor=160 / 441),
    multi=multi,
    mult2=mult2,
    arf=lambda x: torch.arange(0, x.shape[1], 0.3),
    arf2=lambda x: torch.arange(0, 1, 1 / x.shape[1]),
    lin_2=lambda x: torch.linspace(0, x.shape[1], int(x.shape[1] * 1.5)),
    ar3=lambda x: torch.arange(x.shape[1], 0, -3),
    arst=lambda x: torch.arange(10, x.shape[1]),
    framed=framed,
    overlap=overlap,
    ift=lambda x: x[:, :100] if x.shape[1] > 100 else x,
    ift2=lambda x: x.mean(1, keepdim=True) if x.shape[1] > 200 else x,
    whiles=whiles,
    halves=halves,
    tryshape=tryshape,
    pos=Pos(),
    tril=Tril(),
    where_2=lambda x: torch.where(x > 0)[0],
    nz=lambda x: (x > 0).nonzero(),
    uniq=lambda x: x.round().unique(return_counts=True),
    topk_2=lambda x: x.topk(min(20, x.shape[1] // 2), 1),
    topk2=lambda x: x.topk(int(x.shape[1] * 0.3), 1).indices,
    dc=lambda x: Out(x, [x[:, 2:]]),
    nest=nest,
    ceil=lambda x: x.new_zeros(math.ceil(x.shape[1] / 7)),
    ceil2=lambda x: x.new_zeros(math.ceil(x.shape[1] * 0.1)),
    flo=lambda x: x.new_zeros(math.floor(x.shape[1] / 0.7)),
    sqrt=lambda x: x.new_zeros(int(math.sqrt(x.shape[1]))),
    isq=lambda x: x.new_zeros(math.isqrt(x.shape[1])),
    pw=lambda x: x.new_zeros(int(x.shape[1] ** 0.5)),
    lg=lambda x: x.new_zeros(int(math.log2(x.shape[1])) + 1),
    rnd_2=lambda x: x.new_zeros(round(x.shape[1] / 3)),
    rnd2=lambda x: x.new_zeros(round(x.shape[1] * 16000 / 44100)),
    rnd1=lambda x: x.new_zeros(int(round(x.shape[1] * 0.15, 0))),
    mod=lambda x: x[:, : x.shape[1] % 10],
    mod2=lambda x: x[:, : x.shape[1] - x.shape[1] % 10],
    neg_2=lambda x: x[:, : -(x.shape[1] // 4)],
    negd=lambda x: x.new_zeros(-(-x.shape[1] // 16)),
    half=lambda x: x[:, : int(x.shape[1] * 0.5)],
    sec=lambda x: x.new_zeros(int(x.shape[1] / 16000 * 50)),
    sec2=lambda x: x.new_zeros(int(x.shape[1] * 50 / 16000) + 1),
    ln=lambda x: x.new_zeros(len(x[0])),
    ln2=lambda x: x.new_zeros(len(range(0, x.shape[1], 7))),
    rt=lambda x: torch.tensor(x.numpy()[:, ::4]),
    npp=lambda x: torch.as_tensor(np.pad(x.numpy(), ((0, 0), (3, 4)))),
    pneg=lambda x: F.pad(x, (-5, -6)),
    pcirc=lambda x: F.pad(x[:, None], (9, 9), mode="circular"),
    stft_2=lambda x: torch.stft(x, 32, 10, return_complex=True, window=torch.hann_window(32), center=False),
    istft=lambda x: torch.istft(
        torch.stft(x, 32, 8, return_complex=True, window=torch.hann_window(32)), 32, 8, window=torch.hann_window(32)
    ),
    istftl=lambda x: torch.istft(
        torch.stft(x, 32, 8, return_complex=True, window=torch.hann_window(32)),
        32,
        8,
        window=torch.hann_window(32),
        length=x.shape[1],
    ),
    rfft=lambda x: torch.fft.rfft(x),
    irfft=lambda x: torch.fft.irfft(torch.fft.rfft(x)),
    fftn=lambda x: torch.fft.fft(x, n=2 * x.shape[1] - 1),
    ct=lambda x: tripled(x[:, None], output_size=(x.shape[1] * 3,)),
    ct2=lambda x: octupled(x[:, None]),
    same=lambda x: same(x[:, None]),
    pool_2=lambda x: F.avg_pool1d(x[:, None], 3, 2, 1, ceil_mode=True),
    lp=lambda x: F.lp_pool1d(x[:, None], 2, 5, 3),
    adm=lambda x: F.adaptive_max_pool1d(x[:, None], x.shape[1] // 3),
    ada=lambda x: F.adaptive_avg_pool1d(x[:, None], 16),
    unp=lambda x: F.max_unpool1d(*F.max_pool1d(x[:, None], 2, return_indices=True), 2),
    fracs=lambda x: F.pixel_shuffle(x[:, : x.shape[1] // 4 * 4].reshape(x.shape[0], 4, -1, 1), 2),
    evenodd=evenodd,
    gauss=gauss,
    diff=lambda x: x.diff(n=2),
    cdist=lambda x: torch.cdist(x[..., None], x[:, ::2, None]),
    kron=lambda x: torch.kron(x, torch.ones(1, 3)),
    tile=lambda x: x.tile(1, 3)[:, : 2 * x.shape[1] + 5],
    rint=lambda x: x.repeat_interleave(2, 1),
    roll_2=lambda x: torch.cat([x[:, -3:], x], 1),
    gath=lambda x: x.gather(1, torch.arange(0, x.shape[1], 5).expand(x.shape[0], -1)),
    idx=lambda x: x[:, [0, -1]],
    idx2=lambda x: x[:, 10],
    ell=lambda x: x[..., None, 1:-1],
    trunc=lambda x: x[:, 8:64],
    last=lambda x: x[:, -10:],
    lasts=lambda x: x[:, -40::2],
    mid=lambda x: x[:, x.shape[1] // 3 : 2 * x.shape[1] // 3],
    var=lambda x: x[:, max(0, x.shape[1] - 30) :],
    clamp=lambda x: x[:, : max(1, min(x.shape[1] // 10, 8))],
    tri_2=lambda x: torch.tril_indices(x.shape[1], x.shape[1]),
    comb_2=lambda x: torch.combinations(x[0, :8]),
    outer=lambda x: torch.outer(x[0], x[0, 1:]),
    bl=lambda x: torch.block_diag(x, x[:, 1:]),
    hs=lambda x: x.hsplit(2)[0] if x.shape[1] % 2 == 0 else x,
    tsp=lambda x: torch.tensor_split(x, 4, 1)[3],
    spl=lambda x: x.split([10, x.shape[1] - 10], 1)[1],
    splr=lambda x: x.split(x.shape[1] // 3 or 1, 1)[0],
    ub=lambda x: torch.stack([f.sum() for f in x.unbind(0)]),
    zipx=lambda x: (
        torch.stack([a * b for a, b in zip(x.unbind(1), x.unbind(1)[1:], strict=False)], 1)
        if x.shape[1] < 40
        else x[:, 1:]
    ),
    red=lambda x: functools.reduce(lambda a, b: torch.cat([a, b], 1), [x] * 3),
    prod=lambda x: x.new_zeros(math.prod(x.shape)),
    num=lambda x: x.new_zeros(x.numel() // 3),
    dv=lambda x: x.new_zeros(divmod(x.shape[1], 7)[0], divmod(x.shape[1], 7)[1]),
    ab=lambda x: x.new_zeros(abs(x.shape[1] - 60)),
    sm=lambda x: x.new_zeros(sum(x.shape)),
    srt=lambda x: x.new_zeros(sorted(x.shape)[0]),
    anyx=lambda x: x.new_zeros(2 if any(s > 150 for s in x.shape) else 3),
    tup=lambda x: x.new_zeros((x.shape[1],) * 2),
    lst=lambda x: x.reshape([*x.shape[:-1], 1, x.shape[-1]]),
    sz=lambda x: x.expand(*x.size()).reshape(x.size(0), -1, 1),
    vw=lambda x: x.reshape(-1, x.shape[1] // 2) if x.shape[1] % 2 == 0 else x,
    bcast=lambda x: x + torch.zeros(1),
    sq=lambda x: x[:, None].squeeze(1),
    cumm=lambda x: x.cummax(1).values[:, ::10],
    srch=lambda x: torch.searchsorted(torch.arange(x.shape[1]).float(), x),
    hist_2=lambda x: torch.histc(x, x.shape[1] // 5 + 1),
    msk=lambda x: x.masked_fill(torch.arange(x.shape[1]) > 50, 0),
    msks=lambda x: x[:, torch.arange(x.shape[1]) % 3 == 0],
    msk2=lambda x: x[:, torch.arange(x.shape[1]) < 60],
    rnn=lambda x: recurrent(x[..., None]),
    mha=lambda x: attention(
        x[..., None].expand(-1, -1, 4), x[:, ::2, None].expand(-1, -1, 4), x[:, ::2, None].expand(-1, -1, 4)
    ),
    sdpa=lambda x: F.scaled_dot_product_attention(*[x[:, None, :, None].expand(-1, 2, -1, 8)] * 3),
    ctc=lambda x: x.log_softmax(1).argmax(1),
    drop_2=lambda x: x[:, :: max(1, x.shape[1] // 20)],
    steps=lambda x: x[:, :: x.shape[1] // 16 or 1],
    strs=lambda x: x.new_zeros(len(f"{x.shape[1]:05d}")),
    f32=lambda x: x.new_zeros(int(torch.tensor(x.shape[1] * 0.7).item())),
    tens=lambda x: x.new_zeros(int((torch.tensor(x.shape[1]) / 3).floor())),
    tlen=lambda x: x.new_zeros(torch.tensor(x.shape).sum().item()),
    npl=lambda x: x.new_zeros(int(np.floor(x.shape[1] * 0.3))),
    npr=lambda x: x.new_zeros(np.arange(0, x.shape[1], 9).shape[0]),
    nplin=lambda x: torch.from_numpy(np.linspace(0, 1, x.shape[1] // 2)),
    frac=lambda x: x.new_zeros(int(Fraction(x.shape[1], 3))),
    dec=lambda x: x.new_zeros(x.shape[1] >> 2),
    shl=lambda x: x.new_zeros(x.shape[1] << 1),
    band=lambda x: x.new_zeros(x.shape[1] & ~7),
    bor=lambda x: x.new_zeros(x.shape[1] | 1),
    xor=lambda x: x.new_zeros(x.shape[1] ^ 3),
    pw2=lambda x: x.new_zeros(1 << (x.shape[1] - 1).bit_length()),
    fb=lambda x: x.new_zeros(float(x.shape[1]).__floor__()),
    hsh=lambda x: x.new_zeros({100: 5}.get(x.shape[1], 6)),
    eq_2=lambda x: x.new_zeros(3 if x.shape[1] == 100 else 4),
    sett=lambda x: x.new_zeros(len(set(x.shape))),
    bb=lambda x: x if x.shape[0] > 1 else x[0],
    two=lambda x: x.new_zeros(2 * (x.shape[1] > 64) + 1),
    tern=lambda x: x.new_zeros(x.shape[1] if x.shape[0] == 2 else 7),
    ltg=lambda x: x.new_zeros(5 if 20 < x.shape[1] <= 120 else 9),
)

PICTURES = dict(
    five_crops=five_crops,
    relative_table=relative_table,
    large=large,
    squared=squared,
    centred=centred,
    unshuffled=unshuffled,
    unshuffled_whole=lambda x: F.pixel_unshuffle(x, 4),
    position=lambda x: F.interpolate(torch.zeros(1, 4, 6, 6), size=(x.shape[2] // 8, x.shape[3] // 8), mode="bicubic"),
    turned=lambda x: x.transpose(2, 3) if x.shape[2] > x.shape[3] else x,
    crop2=crop2,
    resize_short=resize_short,
    win=win,
    patch=patch,
    grid=grid,
    levels=levels,
    ratio=ratio,
    aspect=aspect,
    aff=lambda x: F.grid_sample(
        x, F.affine_grid(torch.eye(2, 3)[None].expand(x.shape[0], -1, -1), (x.shape[0], 3, x.shape[2] // 2, x.shape[3]))
    ),
    gap=lambda x: x.mean((2, 3)),
    col=lambda x: F.unfold(x, 3, stride=2, padding=1),
    rot=lambda x: x.rot90(1, (2, 3)),
    maxd=lambda x: x.new_zeros(max(x.shape[2:])),
    pool=lambda x: F.adaptive_avg_pool2d(x, (None, 7)),
    conv=lambda x: F.max_pool2d(halved(x), 3, 2, 1),
    up=lambda x: F.interpolate(F.avg_pool2d(x, 4), size=x.shape[2:]),
    cat=lambda x: torch.cat([x, F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:])], 1),
    tok=lambda x: torch.cat([x.flatten(2).transpose(1, 2), x.new_zeros(x.shape[0], 1, 3)], 1),
    sq2=lambda x: x.new_zeros(int((x.shape[2] * x.shape[3]) ** 0.5)),
)

PAIRS = dict(
    every=lambda x, y: x[:, torch.arange(0, x.shape[1], y.shape[1])],
    windows=lambda x, y: x.unfold(1, y.shape[1] // 4, y.shape[1] // 9),
    zipped=lambda x, y: torch.stack([a + b for a, b in zip(x.unbind(1)[:9], y.unbind(1), strict=False)], 1),
    apart=lambda x, y: x.new_zeros(abs(x.shape[1] - y.shape[1])),
    aligned=lambda x, y: F.interpolate(y[:, None], size=x.shape[1])[:, 0] - x,
    longest=longest,
    shortest=shortest,
    joined=lambda x, y: torch.cat([x, y], 1),
    product=lambda x, y: x.T @ y,
    pairs=lambda x, y: x[:, :, None] * y[:, None],
)
