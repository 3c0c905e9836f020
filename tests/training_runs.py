"""What tests/test_training.py trains in other processes: `training_runs.py shared|killed FOLDER [KILLED_IN_STEP]`."""

import os
import random
import signal
import sys

import numpy as np
import torch

from avlib import training
from avlib.models.cav_mae import CAVMAE

SIZES = {
    "audio_length": 32,
    "mel_bins": 32,
    "audio_patch": 8,
    "image_size": 16,
    "image_patch": 8,
    "width": 16,
    "heads": 2,
}
SIZES |= {"modality_depth": 1, "decoder_width": 16, "decoder_heads": 2, "decoder_depth": 1}


def train(step, folder, dtype, **settings):
    """The tiny CAV-MAE, of which `norm1_a` and others never get a gradient, on noise."""
    torch.manual_seed(0)
    dataset = torch.utils.data.TensorDataset(
        torch.randn(64, 32, 32, dtype=dtype), torch.randn(64, 3, 16, 16, dtype=dtype)
    )
    model = CAVMAE(**SIZES).to(dtype)
    before = random.getstate()
    training.fit(model, step, dataset, training.Settings(warmup=3, **settings), folder=folder, progress=False)
    assert random.getstate() == before


def shared(contrast_weight):
    """Masks depend on an item's place in the whole batch."""

    def step(model, batch):
        audio, image = batch
        noise = {"noise_audio": training.uniform(len(audio), 16), "noise_image": training.uniform(len(image), 4)}
        out = model(audio, image, contrast_weight=contrast_weight, **noise)
        return out.loss, {name: getattr(out, name) for name in ("mae_audio", "mae_image", "contrast")}

    return step


def killed(in_step):
    """Masks and augmentation come from the generators that there are."""
    calls = []

    def step(model, batch):
        calls.append(None)
        if in_step == str(len(calls)):
            os.kill(os.getpid(), signal.SIGKILL)
        audio, image = batch
        audio = audio.roll(random.randrange(32), dims=1) + np.random.normal() * 0.1  # noqa: NPY002
        out = model(audio, image, contrast_weight=1.0)
        return out.loss, {"contrast": out.contrast}

    return step


if __name__ == "__main__":
    how, folder, *rest = sys.argv[1:]
    if how == "killed":
        train(killed(*rest), folder, torch.float32, steps=12, batch_size=16, save_every=2)
    else:
        train(shared(1.0), f"{folder}/whole", torch.float64, steps=8, batch_size=16)
        train(shared(1.0), f"{folder}/parts", torch.float64, steps=8, batch_size=16, accumulate=2)
        # 7 and 8 items, of which contrast would need as many in each process
        train(shared(0.0), f"{folder}/uneven", torch.float64, steps=8, batch_size=15)
        train(shared(1.0), f"{folder}/sharp", torch.float64, steps=8, batch_size=16, accumulate=2, optimizer="sam")
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    print(f"{world} process{'es' if world > 1 else ''}")
