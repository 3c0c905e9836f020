"""What can be chosen, and what the arguments of the README are called here: tables that a notebook shows."""

from __future__ import annotations

from ...models.classifiers import BACKBONES

LOSSES = {
    "cross_entropy": "-log of the right class's probability; of a regression mse is taken",
    "mse": "squared error, of a regression",
    "bce": "binary cross entropy of each class, their mean; in class_balanced, with cb_form=sigmoid, their sum",
    "focal": "counts a clip less, the surer the model is of it: focal_gamma, focal_alpha, focal_form",
    "class_balanced": "a class counts by its effective number of clips: beta, cb_form, cb_gamma",
    "balancing": "the classes of a word count alike: balancing_form, laplace, cap",
    "difficulty": "counts by how hard the word is to say: difficulty_strength, difficulty_table, normal_label",
    "contrastive": "cross entropy, and clips of one word and label alike: contrastive_weight, temperature",
    "pair_contrastive": "cross entropy, and pairs of clips of one word: contrastive_weight, margin",
}
OPTIMIZERS = {
    "adamw": "Adam, with weight decay apart from the gradient",
    "adam": "Adam, with weight decay in the gradient",
    "sgd": "the gradient with momentum",
    "sam": "a second gradient, where the loss is highest nearby: rho; it steps as sharp_base says",
    "asam": "the same, where nearby is measured by the size of each weight",
}
SCHEDULES = {
    "constant": "after the warm-up as high as it was",
    "linear": "after the warm-up in a line down to min_learning_rate",
    "cosine": "as a cosine, `cycles` times, each from gamma times the top before",
    "multistep": "times gamma after each epoch of milestones",
}

# An argument of the README, and its name here. One that has its name here too is not in the table: seed, target,
# test_size, valid_size, k_fold, checkpoint, test, data_type, n_mels, hop_length, transform, time_mask, freq_mask,
# age_momentum, warmup_ratio, batch_size, epochs, splitted_data_files. --word is `words` here, since `word` says how a
# model is told the word; beside --filter_dataset it is what it is there.
ALIASES = {
    "data_length": "seconds",
    "model_name": "backbone",
    "model_embedding": "age",
    "model_text_embedding": "word",
    "filter_dataset": {"word": "words"},
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

# What values are here, by our names, or by an alias that says the contrary: in whatever case, and as the README and its
# code call them. Others are as they are.
_ROW = {"true": "row", "false": ""}
_LOSS = {"ce": "cross_entropy", "bce_logit": "bce", "cb": "class_balanced", "class balanced": "class_balanced"}
_BACKBONE = {"whisper": "whisper-base", "wav2vec2": "wav2vec2-base", "resnet": "resnet50"}
VALUES = {
    "age": _ROW,
    "word": _ROW,
    "no_shuffle": {"true": "false", "false": "true"},
    "optimizer": {name: name for name in OPTIMIZERS},
    "schedule": {"cosine_annealing": "cosine", **{name: name for name in SCHEDULES}},
    "backbone": {**_BACKBONE, **{name: name for name in BACKBONES}},
    "loss": {**_LOSS, **{name: name for name in LOSSES}},
}


def choices() -> dict[str, dict[str, str]]:
    """What can be chosen, by setting, each with what it is: losses, optimisers, schedules and backbones."""
    backbones = {
        name: f"{facts.takes}, width {facts.width}, {facts.published or 'no weights on the hub'}"
        for name, facts in BACKBONES.items()
    }
    return {"loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "backbone": backbones}
