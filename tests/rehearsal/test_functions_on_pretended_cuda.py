"""Features, masking and losses on a pretended CUDA device give what they give on the CPU, in any autocast."""

import inspect
import random
from types import SimpleNamespace

import pytest
import torch
from pretending import DevicesDifferError, Pretending, autocast, back, moved
from torch import nn
from torch.nn import functional as F

from avlib import features, losses, masking
from avlib.features import singing
from avlib.features.augmentation import random_band
from avlib.features.harmonics import turns


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


SOUND = 0.5 * torch.sin(torch.arange(8000) / 9)
SOUNDS, LENGTHS = torch.stack([SOUND, SOUND.flip(0)]), torch.tensor([8000, 6000])
FBANK, HERTZ = drawn(2, 64, 128), 100 + 50 * drawn(2, 9)
PICTURE = (255 * drawn(40, 48, 3)).to(torch.uint8)
FACE = (255 * drawn(3, 96, 96, seed=1)).to(torch.uint8)
UNITS = torch.tensor([7, 7, 3, 3, 3, 9])
PLACE = (4, 6, 30, 36)

# Name: arguments; a value is a tensor or what stays as it is. Random numbers come from the CPU in all of them.
FEATURES = {
    "beats_fbank": (SOUNDS,),
    "cav_mae_fbank": (SOUNDS, 16000, {"lengths": LENGTHS, "target_length": 64}),
    "cav_mae_image": ((255 * drawn(2, 3, 40, 48)).to(torch.uint8), 32),
    "crop_pictures": ((255 * drawn(2, 3, 40, 48)).to(torch.uint8), 32),
    "normalize_pictures": ((255 * drawn(2, 3, 8, 8)).to(torch.uint8),),
    "denormalize_pictures": (drawn(2, 3, 8, 8),),
    "kaldi_fbank": (SOUNDS,),
    "cut_frames": (SOUNDS, 400, 160),
    "remove_mean": (drawn(2, 5, 400),),
    "preemphasize": (drawn(2, 5, 400),),
    "power_spectrum": (drawn(2, 5, 400), 512),
    "floored_log": (drawn(4, 4),),
    "whisper_log_mel": (SOUNDS,),
    "resnet_log_mel": (SOUNDS, 64, {"columns": 32}),
    "vocoder_log_mel": (SOUNDS,),
    "speaker_mel": (SOUND,),
    "svc_log_mel": (SOUNDS,),
    "log10_to_ln": (drawn(4, 4) - 3,),
    "harmonics": (HERTZ, drawn(2, 9, 5), 16000, 64),
    "mask_bands": (FBANK, 20, 20, {"generator": 3}),
    "add_noise": (FBANK[0], {"generator": 3}),
    "roll_time": (FBANK[0], {"generator": 3}),
    "mix": (SOUND, SOUND.flip(0), 0.3),
    "mix_waveforms": (SOUND, SOUND[:5000].flip(0), 0.3),
    "valid_mask": (LENGTHS, 8000),
    "without_padding": (SOUNDS, LENGTHS),
    "run_lengths": (UNITS,),
    "deduplicate": (UNITS,),
    "crop_face": (PICTURE, PLACE),
    "paste_face": (PICTURE, FACE, PLACE, 0.2),
    "spectrogram_range": ([FBANK[0], FBANK[1, :20]],),
}
INNER = {
    "turns": (HERTZ, 16000, 64),
    "random_band": (drawn(2, 2), 9, LENGTHS // 200, 40),
}  # used by other modules, and not offered by `features`
# Checks, which return nothing; and what has no tensor among its inputs, or is for the CPU.
# fmt: off
ELSEWHERE = {
    "Moments", "Place", "all_hold", "check_boxes", "check_finite", "check_lengths", "check_sound", "check_units",
    "compare_ranges", "cav_mae_frame_indices", "empty_filters", "face_places", "frame_geometry", "mel2ph",
    "mel2ph_nearest", "mel_filters", "ping_pong", "resnet_hop_length", "soft_labels", "spectrogram_filters",
    "svc_frames", "svc_units", "window_function", "word_difficulty",
}
# fmt: on
LABELS, WORDS = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
VECTORS, LOGITS = drawn(4, 8) - 0.5, drawn(4, 2, seed=1) - 0.5
LOSSES = {
    "normalize_patches": (drawn(2, 4, 8),),
    "masked_patch_error": (drawn(2, 4, 8), drawn(2, 4, 8, seed=1), torch.tensor([[1.0, 0, 1, 0]] * 2)),
    "contrastive_loss": (VECTORS, VECTORS.flip(0), {"both_directions": True}),
    "supervised_contrastive_loss": (VECTORS, LABELS, 0.1, WORDS),
    "draw_partners": (LABELS, WORDS, drawn(4, 4)),
    "pair_contrastive_loss": (VECTORS, VECTORS.flip(0), VECTORS.roll(1, 0), 0.1, LABELS > 0, LABELS < 1),
    "cross_entropy_loss": (LOGITS, LABELS, drawn(4), 0.1),
    "focal_loss": (LOGITS, LABELS, 2.0, [0.3, 0.7]),
    "class_balanced_loss": (LOGITS, LABELS, drawn(2), "focal"),
    "class_balanced_weights": (torch.tensor([3, 9]),),
    "count_table": (WORDS, LABELS, 2, 2),
    "balancing_weights": (torch.tensor([[3, 9], [1, 0]]),),
    "difficulty_weights": (drawn(4) * 9 + 2, LABELS),
}
CASES = [pytest.param(features, name, id=name) for name in FEATURES]
CASES += [pytest.param(SimpleNamespace(turns=turns, random_band=random_band), name, id=name) for name in INNER]
CASES += [pytest.param(losses, name, id=name) for name in LOSSES]


def called(module, name, place=lambda value: value):
    arguments = (FEATURES | INNER | LOSSES)[name]
    *given, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    options = dict(options)
    if "generator" in options:
        options["generator"] = torch.Generator().manual_seed(options["generator"])
    return getattr(module, name)(*(place(value) for value in given), **place(options))


@pytest.mark.parametrize(("module", "name"), CASES)
def test_functions(module, name, unchecked):
    expected = called(module, name)
    for dtype in (None, torch.bfloat16, torch.float16):
        with Pretending(), autocast(dtype):
            found = back(called(module, name, moved))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # inside autocast as outside


def test_every_function_is_rehearsed():
    public = {name for name, value in vars(features).items() if inspect.isroutine(value) or inspect.isclass(value)}
    assert public - ELSEWHERE == FEATURES.keys()
    own = {name for name, value in vars(losses).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert own - {"check_choice", "NamedTuple"} == LOSSES.keys()


@pytest.mark.parametrize("mode", masking.MASK_MODES)
@pytest.mark.parametrize("given", [True, False])
def test_masks(mode, given):
    noise = {"noise": drawn(3, 24)} if given else {}

    def masked(place):
        torch.manual_seed(0)
        random.seed(0)
        how = place(noise) if given else {"device": place(SOUND).device}
        mask = masking.random_mask(3, (4, 6), 0.5, mode, **how)
        kept = mask.select(place(drawn(3, 24, 5)))
        return mask.order, mask.removed, mask.restore(kept, place(torch.zeros(1, 1, 5)))

    expected = masked(lambda value: value)
    with Pretending():
        found = back(masked(moved))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert expected[1].sum() == 36


class Faulty(nn.Module):
    """Has the mistakes that a GPU finds."""

    def __init__(self, how):
        super().__init__()
        self.how, self.linear = how, nn.Linear(3, 3)

    def forward(self, x):
        y = self.linear(x)
        if self.how == "a tensor on the CPU":
            return y + torch.zeros(3)
        if self.how == "NumPy":
            return y.detach().numpy()
        if self.how == "a generator":
            return y + torch.rand(2, 3, generator=torch.Generator(), device=x.device)
        if self.how == "an index":
            return torch.zeros(3)[y.argmax(1)]
        if self.how == "an FFT":
            return torch.fft.rfft(y).abs()
        return F.binary_cross_entropy(y.sigmoid(), torch.ones_like(y)) if self.how == "a loss" else y


@pytest.mark.parametrize("how", ["a tensor on the CPU", "NumPy", "a generator", "an index", "an FFT", "a loss", "none"])
def test_faults_are_found(how):
    model = Faulty(how)
    with torch.no_grad():
        model(drawn(2, 3))  # on the CPU nothing is wrong
    with Pretending(), autocast(torch.float16):
        moved(model)
        if how == "none":
            assert back(model(moved(drawn(2, 3)))).dtype == torch.float16
            return
        with pytest.raises((DevicesDifferError, RuntimeError, TypeError)) as found:
            model(moved(drawn(2, 3)))
    said = {"a tensor on the CPU": "on cpu", "NumPy": "numpy", "a generator": "generator", "an index": "on cpu"}
    said |= {"an FFT": "_fft", "a loss": "unsafe to autocast"}
    assert said[how] in str(found.value)


def test_waits_for_the_device_are_noted():
    with Pretending() as device:
        features.run_lengths(moved(UNITS))
        assert device.waits == {"features/units.py:run_lengths"}
        singing.log10_to_ln(moved(drawn(3)))
        assert device.waits == {"features/units.py:run_lengths"}
