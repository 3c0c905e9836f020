"""Inspectors: tensors, spectrograms, tokens and attention, in plain HTML that needs no kernel and no network.

A picture is a PNG with a colour table, which its script reads backwards: a value has 8 bits, so it is shown with "≈",
unless the tensor has few different values. An argument that does not fit raises a ParameterError that names it.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

from ..errors import ParameterError, check_choice, check_whole
from ..shapes import palette
from ..shapes.measuring import statistics_of
from ..shapes.rows import bracketed
from ..shapes.widget import Widget, embedded, widget

LEVELS = 253  # of a picture; three more mark what is no number
MARKS = ("#00D0A0", "#56B4E9", "#0044AA")  # NaN, inf, -inf
LARGEST = 4_000_000  # values that are drawn at first; more are thinned out
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
Limits = tuple[float | int, float | int]
Grids = Mapping[str, tuple[int, int]]


def inspect(
    tensor: Tensor, axes: str = "", name: str = "", limits: Limits | None = None, start: Mapping | None = None,
    budget: int = 300_000,
) -> Widget:  # fmt: skip
    """Show a tensor: its last two axes as a picture, a slider per other axis.

    `axes` names each axis, separated by blanks. If the name of the last but one begins with "time" or "frame", it runs
    from left to right and the last one upwards, as in a spectrogram. Complex values are shown by their magnitude, False
    is grey. `limits` are the ends of the colours, `start` has where sliders begin, by name. Of a tensor that takes more
    than `budget` characters every so many values are shown, and it says so.
    """
    check_whole("budget", budget, 40_000)
    values, names = _values(tensor, "tensor"), axes.split() or [f"axis{number}" for number in range(tensor.ndim)]
    if len(names) != tensor.ndim:
        found = f"{len(names)} names for the shape {bracketed(tensor.shape)}"
        raise ParameterError("axes", found, f"{tensor.ndim} names, separated by blanks")
    begin = [0] * len(names)
    for axis, place in (start or {}).items():
        check_choice("start", axis, names[:-2])
        check_whole(f"start[{axis!r}]", place, 0, tensor.shape[names.index(axis)] - 1)
        begin[names.index(axis)] = place
    title = " ".join(filter(None, (name, bracketed(tensor.shape), str(tensor.dtype)[6:], axes)))
    if not values.size:
        return Widget(f"<p>{html.escape(title)}: no values.</p>", f"{title}: no values")
    added = max(0, 2 - values.ndim)
    turned = values.ndim > 1 and names[-2].lower().startswith(("time", "frame"))
    scale, table = _scale(values, limits, truth=tensor.dtype == torch.bool, signed=not turned)
    values, names, begin = values.reshape((1,) * added + values.shape), [""] * added + names, [0] * added + begin
    strides = [1] * values.ndim
    while True:
        some = values[tuple(slice(None, None, stride) for stride in strides)]
        if some.size <= LARGEST:
            notes = [f"Shown is every {s}th value of {n}." for s, n in zip(strides, names, strict=True) if s > 1]
            first = [place // stride for place, stride in zip(begin, strides, strict=True)][:-2]
            data, picture = _mosaic(some, first, turned, scale, table)
            data |= {"name": name or "tensor", "added": added, "names": names, "sizes": some.shape, "strides": strides}
            still = _note(title, str(statistics_of(tensor) or ""), *notes) + picture
            found = widget("inspect", data | {"full": values.shape}, text=title, still=still)
            if len(found.markup) <= budget:
                return found
        strides[int(np.argmax(some.shape))] *= 2


def spectrogram(
    spectrogram: Tensor, waveform: Tensor, sample_rate: int, hop: int = 160, window: int = 400,
    hertz: Sequence[float | int] | Tensor | None = None, patch: tuple[int, int] | None = None,
    order: str = "frequency", *, name: str = "spectrogram", limits: Limits | None = None,
) -> Widget:  # fmt: skip
    """Show a spectrogram `(time, frequency)` with its sound.

    A cursor follows the player; dragging plays a selection, the wheel zooms; a click on a patch gives its number with
    the formula, its seconds and Hz, and plays its sound, band-passed. Frame n is `window` samples from n * `hop` on;
    `hertz` has the centre of each bin, `patch` the bins and frames of a patch. `order` "frequency" numbers patches row
    by row from the lowest, "time" column by column.
    """
    values, rate = _values(spectrogram, "spectrogram"), sample_rate
    _check_shape("spectrogram", values, values.ndim == 2, "(time, frequency), with values")
    for label, number in (("sample_rate", rate), ("hop", hop), ("window", window)):
        check_whole(label, number, 1)
    check_choice("order", order, ("frequency", "time"))
    frames, bins = values.shape
    centres = None if hertz is None else [float(centre) for centre in hertz]
    if centres is not None and (len(centres) != bins or bins < 2 or sorted(set(centres)) != centres):
        raise ParameterError("hertz", f"{len(centres)} numbers", f"{bins} centres of bins, rising")
    if patch is not None and not (1 <= patch[0] <= bins and 1 <= patch[1] <= frames):
        raise ParameterError("patch", repr(patch), f"bins and frames of a patch, up to {(bins, frames)}")
    scale, table = _scale(values, limits)
    data = scale | {"name": name, "frames": frames, "bins": bins, "hop": hop / rate, "window": window / rate}
    data |= {"hertz": centres, "patch": patch, "rate": rate, "order": order}
    title = f"{name} {bracketed(values.shape)}, {waveform.shape[-1] / rate:.4g} s of sound"
    picture = _png(_levels(values, scale).T[::-1], table)
    still = f'<img alt="{html.escape(title)}" style="width:100%;height:220px" src="{picture}">'
    player = f'<div><audio controls src="{_mp3(waveform, rate)}" aria-label="the sound"></audio></div>'
    return widget("spectrogram", data, text=title, still=_note(title) + player + still)


def tokens(
    audio: Tensor | None = None, image: Tensor | None = None, grids: Grids | None = None,
    removed: Tensor | Sequence[Tensor] | None = None,
) -> Widget:  # fmt: skip
    """Show a spectrogram and a picture with their tokens in one numbering.

    `audio` is `(time, frequency)`, its first row of tokens the lowest frequencies; `image` is `(3, height, width)`, in
    [0, 1] or uint8. `grids` has rows and columns of each by name, as in `{"a": (8, 64), "v": (14, 14)}`; `removed` is 1
    for each removed token, of all grids or one tensor per grid.
    """
    given = [picture for picture in (audio, image) if picture is not None]
    if not grids or len(grids) != len(given):
        raise ParameterError("grids", f"{len(grids or {})} for {len(given)} pictures", "one for each")
    maps, still, count = _maps(grids, dict(zip(grids, given, strict=True)))
    data, text = {"maps": maps}, f"{count} tokens"
    if removed is not None:
        parts = [removed] if isinstance(removed, Tensor) else removed
        gone = np.concatenate([_values(part, "removed").reshape(-1) for part in parts]) != 0
        if len(gone) != count:
            raise ParameterError("removed", f"{len(gone)} values", f"{count}, as many as the grids have tokens")
        data["removed"] = "".join("01"[int(one)] for one in gone)
        text += f", {count - int(gone.sum())} of them kept"
    text += ": " + ", ".join(f"{name} {rows} × {columns}" for name, (rows, columns) in grids.items())
    return widget("maps", data, text=text, still=_note(text) + still)


def attend(
    weights: Tensor, grids: Grids, pictures: Mapping[str, Tensor] | None = None, heads: str | int = "mean",
    limits: Limits | None = None, budget: int = 500_000,
) -> Widget:  # fmt: skip
    """Show attention: a click on a token shows where it looks, with shift who looks at it.

    `weights` is `(query, key)` or `(head, query, key)`, over the tokens of all `grids`, one after the other; a grid
    without one of the `pictures` is grey. `heads` is "mean", "all" for a choice in the output, or a number; `limits`
    are the ends of the colours, by default 0 and the largest weight. What takes more than `budget` characters is
    rounded to fewer levels, and refused where that is not enough.
    """
    values = _values(weights, "weights")
    values = values[None] if values.ndim == 2 else values
    maps, still, count = _maps(grids, pictures or {})
    fits = values.ndim == 3 and values.shape[1:] == (count, count)
    _check_shape("weights", values, fits, f"(head, {count}, {count}), as the grids have {count} tokens")
    check_choice("heads", heads, ("mean", "all", *range(len(values))))
    text = f"attention over {count} tokens, "
    text += {"mean": f"mean of {len(values)} heads", "all": f"{len(values)} heads"}.get(heads, f"head {heads}")
    values = values.mean(axis=0, keepdims=True) if heads == "mean" else values if heads == "all" else values[[heads]]
    most = float(values[np.isfinite(values)].max(initial=0)) or 1.0
    scale, table = _scale(values, limits or (0, most), exact=False)
    levels = _levels(np.sqrt(np.clip(_within(values, scale), 0, 1)), {"low": 0, "high": 1})
    for step in (4, 8, 16, 32):  # the fewer levels, the smaller the PNG
        rounded = np.where(levels < LEVELS, np.minimum(np.round(levels / step) * step, LEVELS - 1), levels)
        picture = _png(rounded.astype(np.uint8).reshape(-1, count), table)
        data = {"maps": maps, "heads": len(values), "power": 2, "weights": picture}
        said = text if step == 4 else f"{text}, in {LEVELS // step} levels"
        found = widget("maps", scale | data, text=said, still=_note(said) + still)
        if len(found.markup) <= budget:
            return found
    needed = f"{len(found.markup):,} characters for {text}"
    raise ParameterError("budget", needed, f"{budget:,} at most", 'Fewer tokens, or heads="mean".')


def _values(tensor: Tensor, subject: str) -> np.ndarray:
    """The values as numbers of numpy, complex ones by magnitude."""
    if not isinstance(tensor, Tensor) or tensor.is_meta:
        found = "a tensor without values" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise ParameterError(subject, found, "a tensor of torch with values")
    values = tensor.detach().cpu().resolve_conj()
    values = values.dequantize() if values.is_quantized else values.to_dense()
    values = values.abs() if values.is_complex() else values
    return values.to(torch.float32 if values.dtype.itemsize < 4 else torch.float64).numpy()


def _check_shape(subject: str, values: np.ndarray, fits: bool, expected: str) -> None:
    if not fits or not values.size:
        raise ParameterError(subject, f"shape {bracketed(values.shape)}", expected)


def _scale(
    values: np.ndarray, limits: Limits | None, *, truth=False, signed=False, exact=True
) -> tuple[dict, np.ndarray]:
    """Limits, or all values if they are few; and a colour table `(256, 3)`."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if signed := signed and limits is None and low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    if limits is not None and not (len(limits) == 2 and all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise ParameterError("limits", repr(limits), "the lowest and the highest value, in this order")
    ends = tuple(map(float, limits or (low, high)))
    scale = {"low": ends[0], "high": ends[1], "below": low < ends[0], "above": high > ends[1]}
    places = np.linspace(0, 1, LEVELS)
    if exact and 0 < len(few := np.unique(finite[:100_000])) <= LEVELS and len(few := np.unique(finite)) <= LEVELS:
        scale["values"] = few.tolist()
        places = _within(few, scale) if ends[1] > ends[0] else np.full(len(few), 0.5)
    colours = colormaps[palette.SIGNED if signed else palette.SPECTROGRAM](places)[:, :3]
    if truth:
        scale |= {"values": [0, 1], "words": ["False", "True"]}
        colours = [to_rgb(palette.MASKED), to_rgb(palette.AUDIO)]
    table = np.full((256, 3), 255)
    table[: len(colours)] = np.round(np.array(colours) * 255)
    table[LEVELS:] = np.round(np.array(list(map(to_rgb, MARKS))) * 255)
    seen: set[tuple] = set()
    for colour in table[::-1]:  # one colour for each level, so that it can be read backwards
        while tuple(colour) in seen:
            colour[2 if colour[2] else 1 if colour[1] else 0] -= 1
        seen.add(tuple(colour))
    return scale, table.astype(np.uint8)


def _within(values: np.ndarray, scale: dict) -> np.ndarray:
    return (values - scale["low"]) / (scale["high"] - scale["low"])


def _levels(values: np.ndarray, scale: dict) -> np.ndarray:
    """Values as levels from 0 to 252, or 253 for NaN, 254 and 255 for infinite ones."""
    good = np.isfinite(values)
    kept = np.where(good, values, scale["low"])
    if "values" in scale or scale["low"] == scale["high"]:
        levels = np.minimum(np.searchsorted(scale.get("values", [scale["low"]]), kept), LEVELS - 1)
    else:
        levels = np.clip(np.round(_within(kept, scale) * (LEVELS - 1)), 0, LEVELS - 1)
    marks = np.select([np.isnan(values), values > 0], [LEVELS, LEVELS + 1], LEVELS + 2)
    return np.where(good, levels, marks).astype(np.uint8)


def _mosaic(values: np.ndarray, first: list[int], turned: bool, scale: dict, table: np.ndarray) -> tuple[dict, str]:
    """All pictures of a tensor as data, and the one at `first` as HTML."""
    tiles = values.reshape(-1, *values.shape[-2:])
    tiles = _levels(tiles.swapaxes(1, 2)[:, ::-1] if turned else tiles, scale)
    count, height, width = tiles.shape
    data = scale | {"start": first, "tile": [width, height], "turned": turned}
    if count > 1:  # one after the other, in lines of about the square's length
        line = width * max(1, round(math.sqrt(count * height / width)))
        data["picture"] = _png(np.pad(tiles.reshape(-1), (0, -tiles.size % line)).reshape(-1, line), table)
    shown = tiles[np.ravel_multi_index(first, values.shape[:-2])] if first else tiles[0]
    style = f"width:{min(760, width * max(1, min(26, 720 // width, 380 // height)))}px;image-rendering:pixelated"
    return data, f'<img alt="the tensor as a picture" style="{style}" src="{_png(shown, table)}">'


def _maps(grids: Grids, pictures: Mapping[str, Tensor]) -> tuple[list[dict], str, int]:
    """The grids for the script, their pictures as HTML, and the number of tokens."""
    maps, stills, count = [], [], 0
    for name in pictures:
        check_choice("pictures", name, tuple(grids))
    for name, (rows, columns) in grids.items():
        check_whole("grids", min(rows, columns), 1)
        source, size = _picture(pictures[name]) if name in pictures else ("", [columns, rows])
        maps.append({"name": name, "rows": rows, "columns": columns, "first": count, "size": size})
        maps[-1] |= {"up": name in pictures and pictures[name].ndim == 2, "drawn": bool(source)}
        stills += [f'<img alt="{html.escape(name)}" style="max-width:380px" src="{source}">'] * bool(source)
        count += rows * columns
    return maps, f"<div>{' '.join(stills)}</div>", count


def _picture(picture: Tensor) -> tuple[str, list[int]]:
    """A spectrogram or picture as a data URL, with its width and height."""
    values = _values(picture, "pictures")
    if values.ndim == 2 and values.size:
        scale, table = _scale(values, None)
        return _png(_levels(values, scale).T[::-1], table), [*values.shape]
    _check_shape("pictures", values, values.shape[:-2] == (3,), "(time, frequency) or (3, height, width)")
    values = values / 255 if picture.dtype == torch.uint8 else values
    if not (values.min() >= 0 and values.max() <= 1):
        found = f"values from {values.min():.3g} to {values.max():.3g}"
        raise ParameterError("pictures", found, "0 to 1, or uint8", "Undo the normalisation first.")
    content = io.BytesIO()
    Image.fromarray(np.round(values.transpose(1, 2, 0) * 255).astype(np.uint8)).save(content, "JPEG", quality=85)
    return embedded(content.getvalue(), "image/jpeg"), [values.shape[2], values.shape[1]]


def _png(levels: np.ndarray, table: np.ndarray) -> str:
    """Levels as a PNG with a colour table, in a data URL."""
    picture, content = Image.fromarray(np.ascontiguousarray(levels)), io.BytesIO()
    picture.putpalette(table.tobytes())
    picture.save(content, "PNG", optimize=True)
    return embedded(content.getvalue(), "image/png")


def _mp3(waveform: Tensor, sample_rate: int) -> str:
    """Sound as an mp3 of one channel, in a data URL."""
    import soundfile
    from torchaudio.functional import resample

    samples = torch.from_numpy(_values(waveform, "waveform")).float()
    fits = samples.ndim in (1, 2) and bool(samples.isfinite().all())
    _check_shape("waveform", samples.numpy(), fits, "(samples,), finite and not empty")
    samples = samples.reshape(-1, samples.shape[-1]).mean(dim=0)
    rate = min((rate for rate in MP3_RATES if rate >= sample_rate), default=48000)
    samples = samples if rate == sample_rate else resample(samples, sample_rate, rate)
    content = io.BytesIO()
    soundfile.write(content, samples.clamp(-1, 1).numpy(), rate, format="MP3")
    return embedded(content.getvalue(), "audio/mpeg")


def _note(title: str, *lines: str) -> str:
    return f"<p><b>{html.escape(title)}</b></p>" + "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
