"""Boxes of faces: from files, or from a detector where one is installed."""

from __future__ import annotations

import importlib
import io
import json
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from ... import media
from ...cache import publishing
from ...errors import DatasetError, ParameterError, check_choice, check_whole
from ...features import check_boxes
from ...features.faces import Box
from ..sources import existing

Track = list[Box | None]  # the boxes of one face, one for each frame of the video; None where it is not seen

DETECTORS = ("auto", "mtcnn", "opencv")
_FORM = "[[x1, y1, x2, y2], null, ...], one for each frame, null where there is no face"
_LARGEST = 50_000_000  # bytes
_SAFE = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy._core.numeric", "_frombuffer")}
_SAFE |= {("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")}
_SURE = 0.9  # probability from which MTCNN's find is a face
_SAME = 0.3  # intersection over union from which two boxes of successive frames are one face


def read_boxes(path: str | Path, face: int = 0) -> Track:
    """Read the boxes of one face from JSON or from a published pickle.

    - JSON: `[[x1, y1, x2, y2], null, ...]` in pixels, or `{"tracks": [...]}` with such a list for each face.
    - Pickle: a list of arrays and None. Nothing but NumPy's arrays is built from it.

    Of several tracks it is number `face`, from 0.

    Raises:
        DatasetError: no such file, another form, or more than boxes in it.
        ParameterError: a box that is not four finite numbers, or no such face.
    """
    path = existing(path)
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise DatasetError(path, "is no file, or a very large one", f"at most {_LARGEST:,} bytes: {_FORM}")
    content = path.read_bytes()
    is_json = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{")
    try:
        boxes = json.loads(content.decode("utf-8-sig")) if is_json else _Arrays(io.BytesIO(content)).load()
    except Exception as error:  # of any class: a damaged or malicious pickle triggers anything
        advice = "It was refused, and nothing in it was executed."
        raise DatasetError(path, f"cannot be read ({error or type(error).__name__})", _FORM, advice) from error
    tracks = boxes.get("tracks") if isinstance(boxes, dict) else [boxes]
    if not isinstance(tracks, list) or not tracks:
        raise DatasetError(path, "no tracks", _FORM)
    check_whole("face", face, 0, len(tracks) - 1)
    return check_boxes(tracks[face], subject=path)


def write_boxes(path: str | Path, tracks: Sequence[Track]) -> None:
    """Write one track as a JSON list, several as `{"tracks": [...]}`."""
    with publishing(Path(path)) as unfinished:
        unfinished.write_text(json.dumps(tracks[0] if len(tracks) == 1 else {"tracks": tracks}) + "\n")


class _Arrays(pickle.Unpickler):
    """Builds lists, numbers, None and NumPy arrays, and refuses all else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):  # bytes in pickles of the older protocols
            return lambda text, encoding: text.encode("latin1")
        module = module.replace("numpy.core.", "numpy._core.")  # its name before NumPy 2
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"holds {module}.{name}")
        return super().find_class(module, name)


def detect_boxes(video: str | Path, detector: str = "auto") -> list[Track]:
    """Find faces in every frame and follow each through the video; the face that is seen most comes first.

    The detector is "mtcnn" of facenet-pytorch, "opencv" for OpenCV's cascade, or "auto" for the first one installed.
    """
    from torchvision.ops import box_iou

    check_choice("detector", detector, DETECTORS)
    find = _detector(detector)
    tracks: list[Track] = []
    latest: list[Box] = []  # of each track
    for count, (_, picture) in enumerate(media.iterate_frames(video)):
        found = find(picture.permute(1, 2, 0).contiguous().numpy())
        free = box_iou(torch.tensor(found).view(-1, 4), torch.tensor(latest).view(-1, 4))  # (found, tracks)
        for box, near in zip(found, free, strict=True):
            track = int(near.argmax()) if len(near) and near.max() >= _SAME else len(tracks)
            if track == len(tracks):
                tracks.append([None] * count)
                latest.append(box)
            else:
                free[:, track] = 0
            tracks[track].append(box)
            latest[track] = box
        for track in tracks:
            track += [None] * (count + 1 - len(track))
    return sorted(tracks, key=lambda track: track.count(None))


def _detector(name: str) -> Callable[[np.ndarray], list[Box]]:
    for kind, load in (("mtcnn", _mtcnn), ("opencv", _opencv)):
        if name in ("auto", kind):
            with suppress(ImportError, AttributeError):  # OpenCV 5 has no cascades
                return load()
    found = "none given, and no detector of faces is installed" if name == "auto" else f"detector {name!r} is missing"
    advice = f"Give a JSON file: {_FORM}. Or: pip install --no-deps facenet-pytorch==2.6.0, or "
    raise ParameterError("boxes", found, "the box of the face in each frame", advice + "'opencv-python-headless<5'.")


def _mtcnn() -> Callable[[np.ndarray], list[Box]]:
    network = importlib.import_module("facenet_pytorch").MTCNN(keep_all=True)

    def find(picture: np.ndarray) -> list[Box]:
        boxes, chances = network.detect(picture)
        pairs = [] if boxes is None else zip(boxes.tolist(), chances, strict=True)
        return [tuple(box) for box, chance in pairs if chance >= _SURE]

    return find


def _opencv() -> Callable[[np.ndarray], list[Box]]:
    cv2 = importlib.import_module("cv2")
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def find(picture: np.ndarray) -> list[Box]:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        return [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in cascade.detectMultiScale(grey)]

    return find
