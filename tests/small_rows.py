"""Settings of all rows with a few steps of smaller models on few clips; each stage's model, data and step from them."""

from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple

from avlib.systems import Stage, changed

# fmt: off
CAV_MAE = {
    "width": 32, "decoder_width": 32, "modality_depth": 1, "clips": 16, "held_out": 64, "frames": 2,
    "training_frames": 2, "batch_size": 8, "steps": 3, "warmup": 1, "labelled": 16,
}
AUDIOTOKEN = {
    "clips": 16, "held_out": 8, "steps": 2, "batch_size": 8, "warmup": 1, "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2, "embed_dim": 16, "channels": [16, 16],
    "text_width": 16, "text_layers": 1, "width": 4, "embedding": 8, "inference_steps": 2, "save_every": 0,
    "image_size": [32, 32], "patch": 4, "latent_channels": 12,
}
CLASSIFICATION = {
    "speakers": 8, "takes": 2, "num_words": 4, "steps": 3, "batch_size": 16, "snr": [20, 20], "test_size": 0.25,
    "valid_size": 0.25, "seed": 7,
}
SVC = {
    "voices": 1, "recognizer.phrases": 4, "data.phrases": 2, "held_out": 1, "steps": 2, "batch_size": 4, "warmup": 1,
    "channels": 8, "layers": 2, "width": 8, "condition_size": 16, "save_every": 0,
}
UNIT2AV = {
    "data.talks": 6, "held_out": 3, "data.speakers": 2, "recognizer.talks": 4, "voices": 2, "recognizer.width": 8,
    "recognizer.layers": 1, "clusters": 12, "steps": 2, "batch_size": 4, "warmup": 1, "save_every": 0,
    "upsample_initial_channel": 32, "embedding_dim": 8, "model_in_dim": 16, "encoder_embed_dim": 8,
    "pitch.network.width": 16, "pitch.network.layers": 1, "pitch_width": 8,
}
FACES = {
    "face.network.encoder_widths": [2, 2, 2, 2, 2, 8], "face.network.decoder_widths": [8, 4, 4, 4, 4, 4],
    "face.network.feedforward": 8, "face.network.output_width": 4, "face.talks": 2, "face.heads": 2,
    "sync.network.width": 4, "sync.network.size": 16,
}
# fmt: on
STAGES = {
    "cav_mae": ("pretraining", "fine_tuning"),
    "audiotoken": ("classifier", "image_classifier", "diffusion", "embedder"),
    "classification": ("classification",),
    "svc": ("recognizer", "diffusion"),
    "unit2av": ("recognizer", "vocoder", "adversarial", "pitch", "sync", "face"),
}
_SMALL = {"cav_mae": CAV_MAE, "audiotoken": AUDIOTOKEN, "classification": CLASSIFICATION, "svc": SVC}
_SMALL |= {"unit2av": UNIT2AV | FACES | {"adversarial.begin": "random"}}
ALL = [(row, stage) for row, stages in STAGES.items() for stage in stages]


class Prepared(NamedTuple):
    """A stage with small settings; `steps` are by network, "" of a single one."""

    settings: Any
    stage: Stage
    dataset: Any
    steps: dict[str, Any]


@cache
def prepared(row: str, stage: str) -> Prepared:
    """Return a stage with small settings and its data."""
    module = import_module(f"avlib.systems.{row}")
    settings = changed(module.tiny, _SMALL[row] | ({} if row == "classification" else {"stage": stage}))
    found = _classification(settings) if row == "classification" else import_module(f"{module.__name__}.stages").stages
    found = found[stage]
    steps = found.step if isinstance(found.step, dict) else {"": found.step}
    dataset = found.data(settings, progress=False)
    return Prepared(settings, found, dataset, {name: partial(one, settings=settings) for name, one in steps.items()})


def _classification(settings):
    from avlib.systems.classification import learning
    from avlib.systems.classification.data import parts

    own = parts(settings, progress=False)
    sampler, weights = learning.sampler_of(own, settings), learning.loss_weights(own, settings)
    stage = Stage(
        data=lambda settings, progress: own.train,
        build=lambda settings, **how: learning.build(settings, own),
        step=partial(learning.step, weights=weights),
        recipe=repr,
        plan=lambda settings: learning.plan(settings, own, sampler),
        validate=partial(learning.validation, own=own, weights=weights),
        better=learning.BETTER[settings.task],
        sampler=lambda settings, dataset: sampler,
    )
    return {"classification": stage}
