"""Each row's steps, validations and figures on a pretended CUDA device give what they give on the CPU."""

from importlib import import_module

import pytest
import torch
from pretending import Pretending, autocast, back, moved
from small_rows import ALL, prepared

from avlib.clips import heads
from avlib.systems.unit2av import faces

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ROWS = [pytest.param(row, stage, id=f"{row}-{stage}") for row, stage in ALL]
# Places in a training step at which the CPU waits for the device, and why they stay.
LISTED = {
    "features/lengths.py:all_hold": "input is refused before it does harm: one number",
    "systems/audiotoken/model.py:token_mask": "an unpadded batch takes no mask, as published: one number",
    "systems/svc/stages.py:noise_of": "each item's noise has its own seed and length, and is drawn on the CPU",
    "training/recognition.py:recognizer_step": "the share right of known labels, whose number is only known there",
    "features/units.py:run_lengths": "as many runs as the units have",
    "models/unit_speech.py:duration_loss": "likewise: the runs that count",
}


def batch_of(dataset, count=2):
    items = [dataset[index] for index in range(count)]
    return dataset.collate(items)


@pytest.mark.parametrize(("row", "stage"), ROWS)
def test_steps(row, stage):
    """The same loss as on the CPU, in three precisions; all of its parts on the device; no unlisted wait."""
    own = prepared(row, stage)
    model, batch = own.stage.build(own.settings, progress=False, device="cpu").train(), batch_of(own.dataset)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def stepped(step, given):
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])  # statistics and power iterations go on in each step
        torch.manual_seed(0)
        return step(model, given)

    expected = {name: stepped(step, batch) for name, step in own.steps.items()}
    with Pretending() as device:
        moved(model)
        for precision, dtype in PRECISIONS.items():
            for name, step in own.steps.items():
                with autocast(dtype):
                    loss, parts = back(stepped(step, moved(batch)))
                close = {"rel": 1e-5} if dtype is None else {"rel": 0.06, "abs": 0.02}
                assert loss.item() == pytest.approx(expected[name][0].item(), **close), (precision, name)
                assert loss.dtype == torch.float32 and parts.keys() == expected[name][1].keys()
                for part, value in parts.items():
                    if part != "right":  # which may turn at a tie
                        assert value.item() == pytest.approx(expected[name][1][part].item(), **close), (precision, part)
    assert device.waits <= LISTED.keys()


def figures_of(row, stage, model, settings):
    """Return all figures of a model; of faces those of one talk, since a picture takes long."""
    module = import_module(f"avlib.systems.{row}")
    if stage == "face":
        extract = import_module("avlib.systems.unit2av.stages").extractor(settings, progress=False)
        talk = heads.Talk("key moon", speaker=3, head=4, seed=5, size=(64, 64))
        return faces.mouth_scores(model, extract, [talk])._asdict()
    if row in ("svc", "unit2av"):
        found = module.assess(model, settings, progress=False).figures
    else:
        found = module.evaluate(model, settings, progress=False)
    return {name: figure.value for name, figure in found.items()}


QUICK = {("cav_mae", "fine_tuning"), ("audiotoken", "image_classifier")}
QUICK |= {("svc", "recognizer"), ("unit2av", "recognizer")}
FIGURES = [
    pytest.param(row, stage, id=f"{row}-{stage}", marks=[] if (row, stage) in QUICK else [pytest.mark.long])
    for row, stage in ALL
]


@pytest.mark.parametrize(("row", "stage"), FIGURES)
def test_figures(row, stage):
    """The same figures as on the CPU: of `validate`, and of `evaluate` or `assess`."""
    own = prepared(row, stage)
    model = own.stage.build(own.settings, progress=False, device="cpu").eval()
    judged = model["generator"] if stage == "adversarial" else model

    def found():
        with torch.no_grad():
            validated = own.stage.validate(model, settings=own.settings) if own.stage.validate else {}
        return dict(validated) | figures_of(row, stage, judged, own.settings)

    expected = found()
    with Pretending():
        moved(model)
        assert found() == pytest.approx(expected, rel=1e-3, abs=1e-4)
