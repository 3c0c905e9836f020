"""Inspectors: tensors, spectrograms, tokens and attention under the reader's hand.

Each is one output of plain HTML that works in a saved notebook, on a page, and without a network. A picture is a PNG
with a colour table, which its script reads backwards: a value has 8 bits, so it is shown with "≈", unless the tensor
has few different values.
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


def inspect(
    tensor: Tensor,
    axes: str = "",
    name: str = "",
    limits: Limits | None = None,
    start: Mapping[str, int] | None = None,
    budget: int = 300_000,
) -> Widget:
    """Show a tensor: its last two axes as a picture, a slider per other axis.

    Pointer and arrow keys give indices and value. If the name of the last axis but one begins with "time" or "frame",
    it runs from left to right and the last one upwards, as in a spectrogram. Complex values are shown by their
    magnitude, False is grey; NaN and infinite values have colours of their own.

    Args:
        axes: a name for each axis, separated by blanks.
        limits: the lowest and highest value of the colours; by default those of the tensor.
        start: where sliders begin, by name of the axis.
        budget: the most characters of HTML; of a larger tensor every so many values are shown, and it says so.

    Raises:
        ParameterError: a tensor without values, or an argument that does not fit it.
    """
    check_whole("budget", budget, 40_000)
    values = _values(tensor, "tensor")
    names = axes.split() or [f"axis{number}" for number in range(tensor.ndim)]
    if len(names) != tensor.ndim:
        found = f"{len(names)} names for the shape {bracketed(tensor.shape)}"
        raise ParameterError("axes", found, f"{tensor.ndim} names, separated by blanks")
    begin = _begin(start or {}, names, tensor.shape)
    title = " ".join(filter(None, (name, bracketed(tensor.shape), str(tensor.dtype)[6:], axes)))
    if not values.size:
        return Widget(f"<p>{html.escape(title)}: no values.</p>", f"{title}: no values")
    added = max(0, 2 - values.ndim)
    turned = values.ndim > 1 and names[-2].lower().startswith(("time", "frame"))
    scale, table = _scale(values, tensor.dtype == torch.bool, limits, signed=not turned)
    looks = str(statistics_of(tensor) or "")
    values, names, begin = values.reshape((1,) * added + values.shape), [""] * added + names, [0] * added + begin
    strides = [1] * values.ndim
    while True:
        some = values[tuple(slice(None, None, stride) for stride in strides)]
        if some.size <= LARGEST:
            notes = [f"Shown is every {s}th value of {n}." for s, n in zip(strides, names, strict=True) if s > 1]
            first = [place // stride for place, stride in zip(begin, strides, strict=True)][:-2]
            data, picture = _mosaic(some, first, turned, scale, table)
            data |= {"name": name or "tensor", "added": added, "names": names, "sizes": some.shape}
            data |= {"strides": strides, "full": values.shape}
            found = widget("inspect", data, text=title, still=_note(title, looks, *notes) + picture)
            if len(found.markup) <= budget:
                return found
        strides[int(np.argmax(some.shape))] *= 2


def spectrogram(
    spectrogram: Tensor,
    waveform: Tensor,
    sample_rate: int,
    hop: int = 160,
    window: int = 400,
    hertz: Sequence[float | int] | Tensor | None = None,
    patch: tuple[int, int] | None = None,
    order: str = "frequency",
    *,
    name: str = "spectrogram",
    limits: Limits | None = None,
) -> Widget:
    """Show a spectrogram `(time, frequency)` with its sound.

    A player moves a cursor through the picture; dragging plays a selection, the wheel zooms. A click on a patch gives
    its number with the formula, its place in seconds and Hz, and plays its sound, band-passed.

    Args:
        waveform: `(samples,)` or `(channels, samples)`; as mp3 in the output.
        hop: samples from one frame to the next; frame n begins with sample n * hop.
        window: samples of a frame.
        hertz: the centre of each frequency bin, rising.
        patch: bins and frames of a patch; what is left over at the ends belongs to none.
        order: "frequency" numbers patches along time first, row by row from the lowest; "time" column by column.

    Raises:
        ParameterError: an argument that does not fit the others.
    """
    values = _values(spectrogram, "spectrogram")
    if values.ndim != 2 or not values.size:
        raise ParameterError("spectrogram", f"shape {bracketed(values.shape)}", "(time, frequency), with values")
    for label, number in (("sample_rate", sample_rate), ("hop", hop), ("window", window)):
        check_whole(label, number, 1)
    check_choice("order", order, ("frequency", "time"))
    frames, bins = values.shape
    centres = None if hertz is None else [float(centre) for centre in hertz]
    if centres is not None and (len(centres) != bins or bins < 2 or sorted(set(centres)) != centres):
        raise ParameterError("hertz", f"{len(centres)} numbers", f"{bins} centres of bins, rising")
    if patch is not None and not (1 <= patch[0] <= bins and 1 <= patch[1] <= frames):
        raise ParameterError("patch", repr(patch), f"bins and frames of a patch, up to {(bins, frames)}")
    scale, table = _scale(values, False, limits, signed=False)
    sound = _mp3(waveform, sample_rate)
    data = scale | {"name": name, "frames": frames, "bins": bins, "hop": hop / sample_rate, "order": order}
    data |= {"window": window / sample_rate, "hertz": centres, "patch": patch, "rate": sample_rate}
    title = f"{name} {bracketed(values.shape)}, {waveform.shape[-1] / sample_rate:.4g} s of sound"
    picture = _png(_levels(values, scale).T[::-1], table)
    still = f'<img alt="{html.escape(title)}" style="width:100%;height:220px" src="{picture}">'
    player = f'<div><audio controls preload="auto" src="{sound}" aria-label="the sound"></audio></div>'
    return widget("spectrogram", data, text=title, still=_note(title) + player + still)


def tokens(
    audio: Tensor | None = None,
    image: Tensor | None = None,
    grids: Mapping[str, tuple[int, int]] | None = None,
    removed: Tensor | Sequence[Tensor] | None = None,
) -> Widget:
    """Show a spectrogram and a picture with their tokens in one numbering.

    Args:
        audio: a spectrogram `(time, frequency)`; its first row of tokens is that of the lowest frequencies.
        image: a picture `(3, height, width)`, in [0, 1] or uint8.
        grids: rows and columns of the tokens of each, by the name of its kind: `{"a": (8, 64), "v": (14, 14)}`.
        removed: 1 or True for each removed token: of all, or a sequence with one tensor per grid.

    Raises:
        ParameterError: pictures, grids and mask do not fit.
    """
    given = [picture for picture in (audio, image) if picture is not None]
    if not grids or len(grids) != len(given):
        raise ParameterError("grids", f"{len(grids or {})} for {len(given)} pictures", "one for each")
    maps, still, count = _maps(grids, dict(zip(grids, given, strict=True)))
    data, text = {"maps": maps}, f"{count} tokens"
    if removed is not None:
        parts = [removed] if isinstance(removed, Tensor) else list(removed)
        gone = np.concatenate([_values(part, "removed").reshape(-1) for part in parts]) != 0
        if len(gone) != count:
            raise ParameterError("removed", f"{len(gone)} values", f"{count}, as many as the grids have tokens")
        data["removed"] = "".join("01"[int(one)] for one in gone)
        text += f", {count - int(gone.sum())} of them kept"
    text += ": " + ", ".join(f"{name} {rows} × {columns}" for name, (rows, columns) in grids.items())
    return widget("maps", data, text=text, still=_note(text) + still)


def attend(
    weights: Tensor,
    grids: Mapping[str, tuple[int, int]],
    pictures: Mapping[str, Tensor] | None = None,
    heads: str | int = "mean",
    limits: Limits | None = None,
) -> Widget:
    """Show attention weights: a click on a token shows where it looks, with shift who looks at it.

    Args:
        weights: `(query, key)` or `(head, query, key)`, over the tokens of all grids, one grid after the other.
        grids: rows and columns of each kind of tokens, by name; see `tokens`.
        pictures: a spectrogram or picture for each grid; a grid without one is grey.
        heads: "mean", "all" for a choice in the output, or the number of one.
        limits: the weights at both ends of the colours; by default 0 and the largest.

    Raises:
        ParameterError: weights of another size, or an unknown head.
    """
    values = _values(weights, "weights")
    values = values[None] if values.ndim == 2 else values
    maps, still, count = _maps(grids, pictures or {})
    if values.ndim != 3 or values.shape[1:] != (count, count) or not values.size:
        found = f"shape {bracketed(weights.shape)}"
        raise ParameterError("weights", found, f"(head, {count}, {count}), as the grids have {count} tokens")
    check_choice("heads", heads, ("mean", "all", *range(len(values))))
    label = {"mean": f"mean of {len(values)} heads", "all": f"{len(values)} heads"}.get(heads, f"head {heads}")
    values = values.mean(axis=0, keepdims=True) if heads == "mean" else values if heads == "all" else values[[heads]]
    finite = values[np.isfinite(values)]
    scale, table = _scale(values, False, limits or (0, float(finite.max(initial=0)) or 1), signed=False, exact=False)
    levels = _levels(np.sqrt(np.clip(_within(values, scale), 0, 1)), {"low": 0, "high": 1})
    levels = np.where(np.isfinite(values), np.round(levels / 4) * 4, LEVELS).astype(np.uint8)  # smaller as a PNG
    data = scale | {"maps": maps, "heads": len(values), "power": 2}
    data["weights"] = _png(levels.reshape(-1, count), table)
    text = f"attention over {count} tokens, {label}"
    return widget("maps", data, text=text, still=_note(text) + still)


def _values(tensor: Tensor, subject: str) -> np.ndarray:
    """The values as numbers of numpy, complex ones by magnitude."""
    if not isinstance(tensor, Tensor) or tensor.is_meta:
        found = "a tensor without values" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise ParameterError(subject, found, "a tensor of torch with values")
    values = tensor.detach().cpu().resolve_conj()
    values = values.dequantize() if values.is_quantized else values.to_dense()
    values = values.abs() if values.is_complex() else values
    return values.to(torch.float32 if values.dtype.itemsize < 4 else torch.float64).numpy()


def _begin(start: Mapping[str, int], names: list[str], shape: Sequence[int]) -> list[int]:
    """The places at which sliders begin."""
    begin = [0] * len(names)
    for name, place in start.items():
        check_choice("start", name, names[:-2])
        size = shape[names.index(name)]
        if isinstance(place, bool) or not isinstance(place, int) or not -size <= place < size:
            raise ParameterError("start", f"{name}: {place!r}", f"an index of {name}, which has {size}")
        begin[names.index(name)] = place % size
    return begin


def _scale(values: np.ndarray, truth: bool, limits: Limits | None, *, signed: bool, exact: bool = True):
    """Limits, or all values if they are few; and a colour table `(256, 3)`."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scale, signed = {}, signed and limits is None and low < 0 < high
    if signed:
        low, high = -max(-low, high), max(-low, high)
    if limits is not None:
        if len(limits) != 2 or not all(map(math.isfinite, limits)) or not limits[0] < limits[1]:
            raise ParameterError("limits", repr(limits), "the lowest and the highest value, in this order")
        scale = {"below": bool(low < limits[0]), "above": bool(high > limits[1])}
        low, high = map(float, limits)
    scale |= {"low": low, "high": high}
    few = np.unique(finite[:100_000])
    few = np.unique(finite) if exact and len(few) <= LEVELS else []
    places = np.linspace(0, 1, LEVELS)
    if 0 < len(few) <= LEVELS:
        scale["values"] = few.tolist()
        places = _within(few, scale) if high > low else np.full(len(few), 0.5)
    colours = colormaps[palette.SIGNED if signed else palette.SPECTROGRAM](places)[:, :3]
    if truth:
        scale |= {"values": [0, 1], "words": ["False", "True"]}
        colours = np.array([to_rgb(palette.MASKED), to_rgb(palette.AUDIO)])
    table = np.full((256, 3), 255)
    table[: len(colours)] = np.round(colours * 255)
    table[LEVELS:] = np.round(np.array([to_rgb(mark) for mark in MARKS]) * 255)
    seen = {tuple(colour) for colour in table[LEVELS:]}
    for colour in table[:LEVELS]:  # one level for each colour, so that it can be read backwards
        while tuple(colour) in seen:
            place = 2 if colour[2] else 1 if colour[1] else 0
            colour[place] -= 1
        seen.add(tuple(colour))
    return scale, table.astype(np.uint8)


def _within(values: np.ndarray, scale: dict) -> np.ndarray:
    return (values - scale["low"]) / (scale["high"] - scale["low"])


def _levels(values: np.ndarray, scale: dict) -> np.ndarray:
    """Values as levels from 0 to 252, or 253 for NaN, 254 and 255 for infinite ones."""
    good = np.isfinite(values)
    marks = np.select([np.isnan(values), values > 0], [LEVELS, LEVELS + 1], LEVELS + 2)
    kept = np.where(good, values, scale["low"])
    if "values" in scale:
        levels = np.minimum(np.searchsorted(scale["values"], kept), LEVELS - 1)
    elif scale["high"] > scale["low"]:
        levels = np.clip(np.round(_within(kept, scale) * (LEVELS - 1)), 0, LEVELS - 1)
    else:
        levels = np.zeros(values.shape)
    return np.where(good, levels, marks).astype(np.uint8)


def _mosaic(values: np.ndarray, first: list[int], turned: bool, scale: dict, table: np.ndarray) -> tuple[dict, str]:
    """All pictures of a tensor side by side as data, and the one at `first` as HTML."""
    tiles = values.reshape(-1, *values.shape[-2:])
    tiles = _levels(tiles.swapaxes(1, 2)[:, ::-1] if turned else tiles, scale)
    count, height, width = tiles.shape
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    data = scale | {"start": first, "tile": [width, height], "columns": columns, "turned": turned}
    if count > 1:
        whole = np.full((-(-count // columns) * columns, height, width), LEVELS, np.uint8)
        whole[:count] = tiles
        rows = whole.reshape(-1, columns, height, width).swapaxes(1, 2)
        data["picture"] = _png(rows.reshape(-1, columns * width), table)
    shown = tiles[np.ravel_multi_index(first, values.shape[:-2])] if count > 1 else tiles[0]
    wide = min(760, width * max(1, min(26, 720 // width, 380 // height)))
    style = f"width:{wide}px;image-rendering:pixelated"
    return data, f'<img alt="the tensor as a picture" style="{style}" src="{_png(shown, table)}">'


def _maps(grids: Mapping[str, tuple[int, int]], pictures: Mapping[str, Tensor]) -> tuple[list[dict], str, int]:
    """The grids for the script, their pictures as HTML, and the number of tokens."""
    maps, stills, count = [], [], 0
    for name in pictures:
        check_choice("pictures", name, tuple(grids))
    for name, (rows, columns) in grids.items():
        check_whole("grids", rows, 1)
        check_whole("grids", columns, 1)
        picture = pictures.get(name)
        source, size = _picture(picture) if picture is not None else ("", [columns, rows])
        maps.append({"name": name, "rows": rows, "columns": columns, "first": count, "size": size})
        maps[-1] |= {"up": picture is not None and picture.ndim == 2, "drawn": bool(source)}
        stills += [f'<img alt="{html.escape(name)}" style="max-width:380px" src="{source}">'] if source else []
        count += rows * columns
    return maps, f"<div>{' '.join(stills)}</div>", count


def _picture(picture: Tensor) -> tuple[str, list[int]]:
    """A spectrogram or picture as a data URL, with its width and height."""
    values = _values(picture, "pictures")
    if values.ndim == 2 and values.size:
        scale, table = _scale(values, False, None, signed=False)
        return _png(_levels(values, scale).T[::-1], table), [*values.shape]
    if values.ndim != 3 or values.shape[0] != 3 or not values.size:
        found = f"shape {bracketed(values.shape)}"
        raise ParameterError("pictures", found, "a spectrogram (time, frequency) or a picture (3, height, width)")
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
    if samples.ndim not in (1, 2) or not samples.numel() or not bool(samples.isfinite().all()):
        raise ParameterError("waveform", f"shape {bracketed(samples.shape)}", "(samples,), finite and not empty")
    samples = samples.mean(dim=0) if samples.ndim == 2 else samples
    rate = sample_rate if sample_rate in MP3_RATES else min((r for r in MP3_RATES if r > sample_rate), default=48000)
    samples = samples if rate == sample_rate else resample(samples, sample_rate, rate)
    content = io.BytesIO()
    soundfile.write(content, samples.clamp(-1, 1).numpy(), rate, format="MP3")
    return embedded(content.getvalue(), "audio/mpeg")


def _note(title: str, *lines: str) -> str:
    return f"<p><b>{html.escape(title)}</b></p>" + "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
