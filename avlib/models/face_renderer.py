"""Unit2AV's face renderer: speech units and a face with its mouth hidden -> the face with a new mouth.

    units (R, 20) -> embedding (R, 20, 512) -> mean of pairs (R, 10, 512) -> attention over 10 frames -> (10 R, 512)
    faces (10 R, 6, 96, 96) -> encoder: sides 96, 48, 24, 12, 6, 3, 1
    decoder: from (10 R, 512, 1, 1) back to 96, joined with the encoder's map of each side -> (10 R, 3, 96, 96)

Two units of 20 ms are one frame at 25 Hz. The first three channels of a face are its picture with the lower half black,
the other three a reference that shows who speaks; colours are in the order blue, green, red. Parameters have the
published names. `render` puts the new mouths into the frames of a video.

Source: Choi et al., "AV2AV: Direct Audio-Visual Speech to Audio-Visual Speech Translation with Unified Audio-Visual
Speech Representation", CVPR 2024, and its code (choijeongsoo/av2av); the picture part is Wav2Lip's: Prajwal et al., "A
Lip Sync Expert Is All You Need for Speech to Lip Generation In the Wild", ACM Multimedia 2020.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, ShapeError, check_choice, check_number
from ..features import check_units
from ..features.faces import FACE_SIDE, Place, check_boxes, crop_face, face_places, paste_face, ping_pong
from ..settings import Count, settings
from . import sizes_that_fit

ROW = 20  # units that attention sees at once
FRAMES = ROW // 2  # pictures of a row
REFERENCES = ("same", "still", "other")
_APART = 25  # faces between a frame and its reference, with "other"
_ENCODER_RESIDUALS, _DECODER_RESIDUALS = (0, 2, 3, 2, 2, 1), (1, 2, 2, 2, 2, 2)

Picture = UInt8[Tensor, "height width 3"]  # RGB
Reference = str | UInt8[Tensor, "3 side side"] | None
Six = Annotated[Sequence[Count], Field(min_length=6, max_length=6)]


@settings
class Config:
    """Settings of the network; the defaults are the published ones.

    encoder_widths: channels at the sides 96, 48, 24, 12, 6, 3; the last is that of the embedding as well.
    decoder_widths: channels at the sides 3, 6, 12, 24, 48, 96.
    reference: what `render` shows as the reference unless it is told otherwise. Weights that were trained with the
        frame itself as reference copy its mouth; with other frames they follow the units.
    """

    num_embeddings: Count = 1000
    encoder_widths: Six = (16, 32, 64, 128, 256, 512)
    decoder_widths: Six = (512, 512, 384, 256, 128, 64)
    feedforward: Count = 1024
    output_width: Count = 32
    reference: Literal["same", "still", "other"] = "same"


class Conv(nn.Module):
    """Convolution, or a transposed one, batch norm, ReLU; the input is added before the ReLU if `residual`."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, residual: bool = False):
        super().__init__()
        self.conv_block = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
        self.residual = residual

    def forward(self, x: Float[Tensor, "frames width rows columns"]) -> Float[Tensor, "frames out high wide"]:
        y = self.conv_block(x)
        return F.relu(y + x if self.residual else y)


def _block(first: nn.Conv2d | nn.ConvTranspose2d, residuals: int = 0) -> nn.Sequential:
    width = first.out_channels
    rest = (Conv(nn.Conv2d(width, width, 3, padding=1), residual=True) for _ in range(residuals))
    return nn.Sequential(Conv(first), *rest)


class FaceRenderer(nn.Module):
    """Mouths from units: 36,100,147 parameters as published."""

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        widths, D = config.encoder_widths, config.encoder_widths[-1]
        blocks = [_block(nn.Conv2d(6, widths[0], 7, padding=3))]
        for before, width, residuals in zip(widths, widths[1:], _ENCODER_RESIDUALS[1:], strict=False):
            blocks.append(_block(nn.Conv2d(before, width, 3, stride=2, padding=1), residuals))
        last = nn.Sequential(Conv(nn.Conv2d(D, D, 3)), Conv(nn.Conv2d(D, D, 1)))  # 3 x 3 -> 1 x 1
        self.face_encoder_blocks = nn.ModuleList([*blocks, last])
        self.unit_embed = nn.Embedding(config.num_embeddings, D)
        self.unit2lip = nn.TransformerEncoderLayer(D, 1, config.feedforward, batch_first=True)
        blocks, before = [_block(nn.Conv2d(D, D, 1))], D
        for index, (width, residuals) in enumerate(zip(config.decoder_widths, _DECODER_RESIDUALS, strict=True)):
            joined = before + [D, *reversed(widths)][index]
            grow = {"stride": 2, "padding": 1, "output_padding": 1} if index else {}  # the first: 1 x 1 -> 3 x 3
            blocks.append(_block(nn.ConvTranspose2d(joined, width, 3, **grow), residuals))
            before = width
        self.face_decoder_blocks = nn.ModuleList(blocks)
        joined, width = Conv(nn.Conv2d(before + widths[0], config.output_width, 3, padding=1)), config.output_width
        self.output_block = nn.Sequential(joined, nn.Conv2d(width, 3, 1), nn.Sigmoid())

    def lips(self, units: Int[Tensor, "rows units"]) -> Float[Tensor, "rows frames width"]:
        """Embeddings of the frames of each row, `(R, 20)` -> `(R, 10, 512)`."""
        if units.ndim != 2 or units.shape[1] != ROW:
            raise ShapeError("units", f"shape {tuple(units.shape)}", f"(rows, {ROW})", "Pad with the last unit.")
        check_units(units, self.config.num_embeddings)
        x = self.unit_embed(units).unflatten(1, (FRAMES, 2)).mean(2)  # (R, 10, 512)
        return self.unit2lip(x)

    def draw(
        self, lips: Float[Tensor, "frames width"], faces: Float[Tensor, "frames channels height width_"]
    ) -> Float[Tensor, "frames 3 height width_"]:
        """Faces with new mouths: `(F, 512)` of `lips`, `(F, 6, 96, 96)` of `forward` -> `(F, 3, 96, 96)`."""
        x, maps = faces.to(lips.dtype), []
        for block in self.face_encoder_blocks:
            x = block(x)
            maps.append(x)
        x = lips[..., None, None]  # (F, 512, 1, 1)
        for block in self.face_decoder_blocks:
            x = torch.cat([block(x), maps.pop()], dim=1)
        return self.output_block(x)

    def forward(
        self, units: Int[Tensor, "rows units"], faces: Float[Tensor, "frames channels height width"]
    ) -> Float[Tensor, "frames 3 height width"]:
        """Faces with new mouths, `(10 R, 3, 96, 96)` in [0, 1], blue, green, red, in the dtype of the weights.

        Args:
            units: `(R, 20)`.
            faces: `(10 R, 6, 96, 96)`, likewise: the picture with rows 48 to 95 black, and the reference.
        """
        lips = self.lips(units).flatten(0, 1)  # (10 R, 512)
        expected = (len(lips), 6, FACE_SIDE, FACE_SIDE)
        if tuple(faces.shape) != expected:
            raise ShapeError("faces", f"shape {tuple(faces.shape)}", f"{expected}: {FRAMES} for each row of units")
        if faces.numel() and not (faces.min() >= 0 and faces.max() <= 1):  # NaN as well
            raise ParameterError("faces", "values outside [0, 1]", "colours from 0 to 1", "Divide bytes by 255.")
        return self.draw(lips, faces)

    def save(self, path: Path | str) -> None:
        """Write a folder for `from_checkpoint`; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "cfg": asdict(self.config)})

    @classmethod
    def from_checkpoint(cls, path: Path | str, num_embeddings: int | None = None) -> FaceRenderer:
        """Load the published container ("video"), a bare state dict, or a folder of `save`, for evaluation.

        `num_embeddings` are rows of the unit table. Rows beyond the file's are copies of its last; fewer are refused.
        """
        tensors, saved = checkpoints.read(path, "video")
        cfg = saved.get("cfg")
        if isinstance(cfg, Mapping):
            try:
                config = Config(**cfg)
            except ParameterError as error:
                raise CheckpointError(path, f'its "cfg": {error.subject}: {error.found}', error.expected) from error
        else:
            config = Config(**sizes_that_fit(lambda **sizes: cls(Config(**sizes)), _sizes(tensors), tensors))
        rows, table = config.num_embeddings, tensors.get("unit_embed.weight")
        if num_embeddings is not None and table is not None:
            if num_embeddings < rows:
                raise CheckpointError(path, f"{rows} units", f"at most num_embeddings={num_embeddings}", "Raise it.")
            tensors["unit_embed.weight"] = torch.cat([table, table[-1:].expand(num_embeddings - rows, -1)])
            config = Config(**asdict(config) | {"num_embeddings": num_embeddings})
        model = cls(config)
        checkpoints.load(model, path, tensors)
        return model.eval()


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings by the shapes in a file; {} if it is no face renderer."""
    try:
        down = [tensors[f"face_encoder_blocks.{i}.0.conv_block.0.weight"].shape for i in range(6)]
        up = [tensors[f"face_decoder_blocks.{i}.0.conv_block.0.weight"].shape for i in range(1, 7)]
        return {
            "num_embeddings": len(tensors["unit_embed.weight"]),
            "encoder_widths": tuple(shape[0] for shape in down),
            "decoder_widths": tuple(shape[1] for shape in up),
            "feedforward": len(tensors["unit2lip.linear1.weight"]),
            "output_width": len(tensors["output_block.0.conv_block.0.weight"]),
        }
    except (KeyError, IndexError, TypeError):
        return {}


# Into the frames of a video


def render_frames(
    renderer: FaceRenderer, frames: Iterable[Picture], places: Sequence[Place | None], units: Int[Tensor, " units"], *,
    reference: Reference = None, feather: float | int = 0.0,
) -> Iterator[Picture]:  # fmt: skip
    """Yield frames with new mouths, two rows of units at a time: a video may be of any length.

    Args:
        frames: `(H, W, 3)`, uint8 RGB, at 25 Hz; one or more for every two units.
        places: of the faces in these frames, see `avlib.features.face_places`. A frame with None is passed on as it is.
        units: `(n,)`. The last of an odd number has no frame.
        reference: what the network sees of the face besides its upper half. "same" is the frame itself, as in published
            inference; "still" the first face; "other" the face of a second before; or a face of `crop_face`. None
            takes that of the renderer's settings.
        feather: see `avlib.features.paste_face`; 0, as published, to 0.5.
    """
    reference = renderer.config.reference if reference is None else reference
    if not isinstance(reference, Tensor):
        check_choice("reference", reference, REFERENCES)
    check_number("feather", feather, 0, 0.5)
    if units.ndim != 1 or not len(units):
        raise ParameterError("units", f"shape {tuple(units.shape)}", "one or more in a row, (n,)")
    check_units(units, renderer.config.num_embeddings)
    count, frames = len(units) // 2, iter(frames)
    rows = torch.cat([units, units[-1:].expand(-len(units) % ROW)]).unflatten(0, (-1, ROW))
    earlier: deque[Tensor] = deque(maxlen=1 if reference == "same" else _APART + 1)
    for first in range(0, count, 2 * FRAMES):
        wanted = min(2 * FRAMES, count - first)
        pictures = list(islice(frames, wanted))
        if len(pictures) < wanted:
            raise ParameterError("frames", f"{first + len(pictures)}", f"{count}, one for every two units")
        found = [index for index in range(wanted) if places[first + index]]
        faces = []
        for index in found:
            face = crop_face(pictures[index], places[first + index])
            if reference != "still" or not earlier:
                earlier.append(face)
            faces.append(torch.cat([face, reference.to(face) if isinstance(reference, Tensor) else earlier[0]]))
        if faces:
            row = first // FRAMES
            for index, patch in zip(found, _new_faces(renderer, rows[row : row + 2], found, faces), strict=True):
                pictures[index] = paste_face(pictures[index], patch, places[first + index], feather)
        yield from pictures


@torch.no_grad()
def _new_faces(
    renderer: FaceRenderer, rows: Int[Tensor, "rows units"], found: list[int], faces: list[UInt8[Tensor, "6 side side"]]
) -> UInt8[Tensor, "faces 3 side side"]:
    """New faces for the frames `found` in some rows; in evaluation, frames do not influence each other."""
    training, device = renderer.training, renderer.unit_embed.weight.device
    pictures = torch.stack(faces)  # (F, 6, 96, 96)
    pictures[:, :3, FACE_SIDE // 2 :] = 0
    renderer.eval()
    try:
        lips = renderer.lips(rows.to(device)).flatten(0, 1)[found]
        return (renderer.draw(lips, pictures.to(device) / 255) * 255).to(torch.uint8).cpu()
    finally:
        renderer.train(training)


def render(
    renderer: FaceRenderer, frames: Tensor | np.ndarray, boxes: Any, units: Int[Tensor, " units"],
    missing: str = "keep", *, reference: Reference = None, feather: float | int = 0.0,
) -> UInt8[Tensor, "rendered height width 3"]:  # fmt: skip
    """Frames of a video with mouths that follow units, `(n // 2, H, W, 3)`, uint8 RGB.

    Args:
        frames: `(T, H, W, 3)`, uint8 RGB, at 25 Hz. If the units last longer, the video goes on backwards, then
            forwards, and so on.
        boxes: of the face in each of the T frames, x1, y1, x2, y2 in pixels; None where there is no face. A box
            without area or outside the picture is no face.
        units: `(n,)`, 50 in a second.
        missing: for frames without a face, "keep" leaves them as they are; "fill", see `avlib.features.face_places`.
        reference, feather: see `render_frames`.
    """
    frames = torch.as_tensor(frames)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        found = f"{frames.dtype} of shape {tuple(frames.shape)}"
        raise ParameterError("frames", found, "uint8 of shape (1 or more frames, height, width, 3)")
    places = face_places(check_boxes(boxes, len(frames)), *frames.shape[1:3], missing)
    order = ping_pong(len(frames), len(units) // 2)
    shown, places = (frames[i] for i in order), [places[i] for i in order]
    pictures = list(render_frames(renderer, shown, places, units, reference=reference, feather=feather))
    return torch.stack(pictures) if pictures else frames[:0]
