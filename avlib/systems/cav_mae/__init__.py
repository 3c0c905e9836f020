"""CAV-MAE put together: settings, data, training, and figures on clips that no training sees.

settings = changed(tiny, {"steps": 300, "fine_tuning.labelled": 128})
model, history, folder = trained(settings)                                  # pretraining
tuned = trained(changed(settings, {"stage": "fine_tuning"})).model          # which begins with that model
evaluate(model, settings)["R@1 audio -> image"]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import cluster, metrics, training
from ...datasets.cav_mae import LabelTable, Sample
from ...datasets.cav_mae.items import Reading
from ...losses import normalize_patches
from ...models.cav_mae import OBJECTIVES, CAVMAEClassifier
from ...models.patches import patchify
from ...workers import POLICIES
from .. import Figure, Report, changed, device_of
from .extracting import extract_many
from .stages import (
    PUBLISHED,
    Settings,
    batches,
    build,
    classifier,
    data,
    fine_tuning_step,
    fitted,
    full,
    galleries,
    held_out,
    inputs_of,
    items_of,
    means,
    patch_counts,
    stages,
    step,
    tiny,
    trained,
)

TITLE = "CAV-MAE"
ROW = 1
HELP = "stage=pretraining or fine_tuning"
COMMANDS = {"extract": "write sound and pictures of clips to disk, as CAV-MAE trains on them"}

_EXTRACT = """\
Write sound and pictures of clips to disk, once. CLIPS may be millions: they are listed on disk and extracted in chunks
by Dask's workers. The same command again does what is missing.
"""
_MODALITIES = {"audio": "a", "image": "v"}


def evaluate(
    model: nn.Module, settings: Settings, seed: int = 0, *, mask_ratio: float | int | None = None, progress: bool = True
) -> dict[str, Figure]:
    """All figures of a model, by name: of a classifier `classification`, else `retrieval` and `reconstruction`.

    Args:
        mask_ratio: of audio and image; None takes those of the training.
    """
    if isinstance(model, CAVMAEClassifier):
        return classification(model, settings, seed, progress=progress)
    searched = galleries(settings, seed, progress=progress)
    figures = retrieval(model, searched)
    if OBJECTIVES[settings.pretraining.objective]["mae_weight"]:
        figures |= reconstruction(model, searched, settings, seed, mask_ratio=mask_ratio, progress=progress)
    return figures


def assess(
    model: nn.Module, settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
) -> Report:
    """All that the command line says of a model: see `evaluate`."""
    if settings.data.data and not items_of(settings, 0)[0]:
        return Report({}, "No clips are held out.")
    remarks = held_out(settings, progress=progress).counts("held out") if settings.data.data else ""
    return Report(evaluate(model, settings, progress=progress), remarks)


@torch.no_grad()
def embeddings(model: nn.Module, batch: Sample) -> tuple[Float[Tensor, "clips width"], Float[Tensor, "clips width"]]:
    """One vector of length 1 for each audio and each image: the mean of its tokens, nothing hidden."""
    with training.evaluating(model):
        tokens = model.encode(*(part.to(device_of(model)) for part in batch[:2]))
    audio, image = (F.normalize(each.mean(dim=1), dim=-1).float().cpu() for each in tokens)
    return audio, image


def retrieval(model: nn.Module, searched: list[Sample]) -> dict[str, Figure]:
    """Return recalls and ranks of own images and own audio in their galleries.

    Where each clip has classes, "kind right" is how often the nearest one shares a class.
    """
    results = [metrics.retrieval(*embeddings(model, batch)) for batch in searched]
    alike = [(batch.labels @ batch.labels.T > 0).float() for batch in searched]
    labelled = all(bool(same.diagonal().all()) for same in alike)
    blind = [1 / same.sum(dim=1) if labelled else torch.full((len(same),), 1 / len(same)) for same in alike]
    simple = float(torch.cat(blind).mean()), "knowing the kind alone" if labelled else "chance"
    figures, right = {}, []
    for way, name in {"audio -> image": "of_images", "image -> audio": "of_audio"}.items():
        found = metrics.Ranking(*map(torch.cat, zip(*(getattr(result, name) for result in results), strict=True)))
        figures[f"R@1 {way}"] = Figure.of_share(found.hits(), *simple)
        figures |= {
            f"R@{k} {way}": Figure.of_share(found.hits(k), min(1.0, k / len(alike[0])), "chance") for k in (5, 10)
        }
        figures[f"median rank {way}"] = Figure(found.median_rank, (len(alike[0]) + 1) / 2, "chance")
        for result, same in zip(results, alike, strict=True):
            first = (result.similarity if name == "of_images" else result.similarity.T).argmax(dim=1, keepdim=True)
            right.append(same.gather(1, first).squeeze(1))
    if not labelled:
        return figures
    chance = float(torch.cat([row.mean(dim=1) for row in alike]).mean())
    return figures | {"kind right": Figure.of_share(torch.cat(right), chance, "chance")}


@torch.no_grad()
def reconstruction(
    model: nn.Module,
    searched: list[Sample],
    settings: Settings,
    seed: int = 0,
    *,
    mask_ratio: float | int | None = None,
    mask_mode: str | None = None,
    progress: bool = True,
) -> dict[str, Figure]:
    """Return mean squared errors on masked patches that are not constant.

    `mask_ratio` (of both) and `mask_mode` are those of the training if they are None. The reference of an error is that
    of each patch's own mean with norm_pix_loss, else that of `means`.
    """
    stage, device = settings.pretraining, device_of(model)
    mask_mode = stage.mask_mode if mask_mode is None else mask_mode
    own_mean = stage.norm_pix_loss
    everywhere = {} if own_mean else dict(zip(_MODALITIES, means(settings, progress=progress), strict=True))
    trained_ratios = {name: getattr(stage, name) for name in ("mask_ratio_audio", "mask_ratio_image")}
    ratios = trained_ratios if mask_ratio is None else dict.fromkeys(trained_ratios, mask_ratio)
    dice = torch.Generator().manual_seed(seed)
    sums = {m: torch.zeros(3, dtype=torch.float64) for m in _MODALITIES}  # of both errors, and how many patches
    for batch in searched:
        inputs = {m: inputs_of(batch, stage.objective)[m] for m in _MODALITIES}
        noise = {
            f"noise_{m}": torch.rand(len(batch.fbank), count, generator=dice).to(device)
            for m, count in zip(_MODALITIES, patch_counts(settings), strict=True)
        }
        there = {m: None if tensor is None else tensor.to(device) for m, tensor in inputs.items()}
        with training.evaluating(model):
            output = model(**there, **noise, **ratios, contrast_weight=0.0, mask_mode=mask_mode)
        for m, letter in _MODALITIES.items():
            if inputs[m] is None:
                continue
            patch = settings.sizes.patches[letter]
            target = patchify(_picture(m, inputs[m]), patch)
            simple = torch.zeros(()) if own_mean else patchify(_picture(m, everywhere[m][None]), patch)
            counted = getattr(output, f"mask_{m}").cpu().bool() & (target.var(dim=-1) > 1e-6)
            target = normalize_patches(target) if own_mean else target
            guesses = getattr(output, f"prediction_{m}").float().cpu(), simple
            errors = [(guess - target).square().mean(dim=-1)[counted].double().sum() for guess in guesses]
            sums[m] += torch.stack([*errors, counted.sum()])
    meaning = "the patch's own mean" if own_mean else "the mean of all clips"
    return {
        f"{m} error": Figure(float(error / count), float(simple / count), meaning)
        for m, (error, simple, count) in sums.items()
        if count
    }


@torch.no_grad()
def classification(
    model: nn.Module, settings: Settings, seed: int = 0, *, ensemble: bool = True, progress: bool = True
) -> dict[str, Figure]:
    """Share of clips whose class is right, and mAP: by the middle frame, and (`ensemble`) by the mean over all."""
    dataset = held_out(settings, seed, progress=progress)
    mode, task = settings.fine_tuning.mode, {"bce": "multi-label", "ce": "single-label"}[settings.fine_tuning.loss]
    seen = {}
    for frame in range(settings.data.frames) if ensemble else [dataset.frame]:
        parts = batches(dataset.at_frame(frame))
        with training.evaluating(model):
            logits = [model(*(x.to(device_of(model)) for x in part[:2]), mode=mode) for part in parts]
        seen[frame] = torch.cat(logits).float().cpu()  # (clips, classes)
    labels = torch.cat([part.labels for part in parts])
    often, figures = float(labels.mean(dim=0).max()), {}
    answers = {"one frame": [seen[dataset.frame]]} | ({f"{len(seen)} frames": list(seen.values())} if ensemble else {})
    for name, frames in answers.items():
        scores = metrics.ensemble(torch.stack(frames), task)
        figures[f"right class, {name}"] = Figure.of_share(
            metrics.correct(scores, labels), often, "always the commonest"
        )
        precision = metrics.mean_average_precision(scores, labels)
        figures[f"mAP, {name}"] = Figure(precision, float(labels.mean()), "chance")
    return figures


def _picture(name: str, tensor: Tensor) -> Tensor:
    """As the model sees it: an fbank with mel as rows, and one channel."""
    return tensor.transpose(1, 2).unsqueeze(1) if name == "audio" else tensor


def extract_command(arguments: list[str]) -> int:
    """Run `avlib extract`."""
    parser = argparse.ArgumentParser("avlib extract", description=_EXTRACT)
    parser.add_argument("system", choices=["cav_mae"], help="whose layout")
    parser.add_argument("clips", metavar="CLIPS", help="a folder of clips, a table, or a list of their paths")
    parser.add_argument("--folder", default="", metavar="DIR", help="where the paths of the table begin")
    parser.add_argument("--labels", default="", metavar="CSV", help="the table of the classes")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--name", default="data", help="of the table that is written (default: data)")
    parser.add_argument("--channel", type=int, help="of the sound; without it all are averaged")
    parser.add_argument("--unaligned", dest="align", action="store_false", help="sound begins with its first sample")
    parser.add_argument("--on-error", choices=POLICIES, default="raise", help="what to do with unusable clips")
    cluster.add_options(parser)
    options = parser.parse_args(arguments)
    table = LabelTable.read(options.labels) if options.labels else None
    reading, out = Reading(channel=options.channel, align=options.align), Path(options.out).absolute()
    report, mean, std = extract_many(Path(options.clips), out, table, reading, options)
    print(report)
    path, classes = out / f"{options.name}.json", out / f"{options.name}_labels.csv"
    labels = f" -p labels={classes}" * (classes.read_text(encoding="utf-8").count("\n") > 1)
    print(f"avlib train cav_mae --data {path}{labels} -p mean={mean:.4f} -p std={std:.4f}")
    return 0
