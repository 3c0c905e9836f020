"""What can be chosen, and what the arguments of the README are called here: tables that a notebook shows."""

from __future__ import annotations

from ... import training

TASKS = ("classification", "regression")
CONDITIONS = ("row", "one_hot_rows", "embedding", "film", "heads")
LOSSES = {
    "cross_entropy": "-log of the right class's probability; of a regression mse is taken",
    "mse": "squared error, of a regression",
    "bce": "binary cross entropy of each class, added up",
    "focal": "counts a clip less, the surer the model is of it: focal_gamma, focal_alpha, focal_form",
    "class_balanced": "a class counts by its effective number of clips: beta, cb_form, cb_gamma",
    "balancing": "the classes of a word count alike: balancing_form, laplace, cap",
    "difficulty": "counts by how hard the word is to say: difficulty_strength, difficulty_table",
    "contrastive": "cross entropy, and clips of one word and label alike: contrastive_weight, temperature",
    "pair_contrastive": "cross entropy, and pairs of clips of one word: contrastive_weight, margin",
}
_SPECTROGRAMS = ("whisper", "resnet", "ast", "beats")

# An argument of the README, and its name here. An argument that has its name here too is not in the table: seed, target,
# test_size, valid_size, k_fold, checkpoint, test, data_type, n_mels, hop_length, transform, time_mask, freq_mask,
# age_momentum, warmup_ratio, batch_size, epochs. One is different: --word, with --filter_dataset, is `words` here, since
# `word` says how a model is told the word.
ALIASES = {
    "data_length": "seconds",
    "model_name": "backbone",
    "model_embedding": "age",
    "model_text_embedding": "word",
    "filter_dataset": "words",
    "train_filename": "train_file",
    "valid_filename": "valid_file",
    "test_filename": "test_file",
    "no_shuffle": "shuffle",
    "test_best_model": "best",
    "lr": "learning_rate",
    "max_lr": "learning_rate",
    "scheduler": "schedule",
    "loss_fn": "loss",
    "scaling": "min_max",
    "num_cycles": "cycles",
    "min_lr": "min_learning_rate",
}

# What values of these arguments are here, where they are called otherwise; others are as they are.
_ROW = {"true": "row", "false": ""}
VALUES = {
    "model_embedding": _ROW,
    "model_text_embedding": _ROW,
    "no_shuffle": {"true": False, "false": True},
    "scheduler": {"cosine_annealing": "cosine"},
    "model_name": {"whisper": "whisper-base", "wav2vec2": "wav2vec2-base", "resnet": "resnet50"},
    "optimizer": {"adamw": "adamw"},
    "loss_fn": {"ce": "cross_entropy", "cb": "class_balanced", "class balanced": "class_balanced"},
}


def kind_of_input(backbone: str) -> str:
    """ "spectrogram" or "wave": what a backbone hears; the README's `data_type`."""
    return "spectrogram" if backbone.startswith(_SPECTROGRAMS) else "wave"


def choices() -> dict[str, dict[str, str]]:
    """What can be chosen, by setting: losses, optimisers, schedules and backbones, each with what it is."""
    from ...models.classifiers import BACKBONES

    return {
        "loss": dict(LOSSES),
        "optimizer": {name: training.Settings.__doc__ and "" for name in training.OPTIMIZERS},
        "schedule": dict.fromkeys(training.SCHEDULES, ""),
        "backbone": {name: str(facts) for name, facts in BACKBONES.items()},
    }
