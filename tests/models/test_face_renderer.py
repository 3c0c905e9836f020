"""The face renderer against a slow one written out here: plain loops over the published names, plain bilinear sums."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avlib.errors import CheckpointError, ParameterError, ShapeError
from avlib.features import check_boxes, crop_face, face_places, paste_face, ping_pong
from avlib.models.face_renderer import Config, FaceRenderer, render, render_frames

TINY = Config(
    num_embeddings=40,
    encoder_widths=(4, 6, 8, 10, 12, 16),
    decoder_widths=(14, 12, 10, 8, 6, 4),
    feedforward=24,
    output_width=6,
)


def perturbed(model):
    """Statistics as of real activations; norms and biases away from where leaving one out would not show."""
    generator = torch.Generator().manual_seed(7)
    model.train()
    with torch.no_grad():
        for block, width in zip(model.face_decoder_blocks[1:], (16, *TINY.decoder_widths), strict=False):
            block[0].conv_block[0].weight[:width] *= 4  # what comes from the units, beside what comes from the picture
        for _ in range(20):
            model(torch.randint(0, 40, (2, 20), generator=generator), torch.rand(20, 6, 96, 96, generator=generator))
        for name, parameter in model.named_parameters():
            if name.endswith((".1.weight", "bias", "norm1.weight", "norm2.weight")):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.output_block[1].weight *= 3
    return model.eval()


@pytest.fixture(scope="module")
def renderer():
    torch.manual_seed(0)
    return perturbed(FaceRenderer(TINY))


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def units_(count, seed=0):
    return torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(seed))


def pictures(count, height=50, width=61, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


# The network


def slow(weights, units, faces):
    """The published network from its state dict, in float64."""
    weights = {name: value.double() for name, value in weights.items()}

    def norm(x, name):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return x * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    def block(x, name, stride, padding, transposed=None):
        index = 0
        while f"{name}.{index}.conv_block.0.weight" in weights:
            key = f"{name}.{index}.conv_block"
            kernel, bias = weights[f"{key}.0.weight"], weights[f"{key}.0.bias"]
            if index:
                y = norm(F.conv2d(x, kernel, bias, padding=1 if kernel.shape[-1] == 3 else 0), f"{key}.1")
                y = y + x if kernel.shape[-1] == 3 else y
            elif transposed is not None:
                y = norm(F.conv_transpose2d(x, kernel, bias, stride, padding, transposed), f"{key}.1")
            else:
                y = norm(F.conv2d(x, kernel, bias, stride, padding), f"{key}.1")
            x, index = y.clamp(min=0), index + 1
        return x

    def layer_norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"unit2lip.{name}.weight"] + weights[f"unit2lip.{name}.bias"]

    def linear(x, name):
        return x @ weights[f"unit2lip.{name}weight"].T + weights[f"unit2lip.{name}bias"]

    lips = []
    for row in units:
        table = weights["unit_embed.weight"][row]  # (20, D)
        x = torch.stack([(table[2 * i] + table[2 * i + 1]) / 2 for i in range(10)])
        query, key, value = linear(x, "self_attn.in_proj_").chunk(3, dim=-1)
        attended = (query @ key.T / x.shape[1] ** 0.5).softmax(-1) @ value
        x = layer_norm(x + linear(attended, "self_attn.out_proj."), "norm1")
        x = layer_norm(x + linear(linear(x, "linear1.").clamp(min=0), "linear2."), "norm2")
        lips += list(x)
    x, maps = faces.double(), []
    for i, (stride, padding) in enumerate([(1, 3), (2, 1), (2, 1), (2, 1), (2, 1), (2, 1), (1, 0)]):
        x = block(x, f"face_encoder_blocks.{i}", stride, padding)
        maps.append(x)
    x = torch.stack(lips)[:, :, None, None]
    for i, (stride, padding, extra) in enumerate([(1, 0, None), (1, 0, 0)] + [(2, 1, 1)] * 5):
        x = torch.cat([block(x, f"face_decoder_blocks.{i}", stride, padding, extra), maps[-1 - i]], dim=1)
    x = block(x, "output_block", 1, 1)
    x = F.conv2d(x, weights["output_block.1.weight"], weights["output_block.1.bias"])
    return 1 / (1 + (-x).exp())


def test_the_network_is_the_published_one(renderer):
    units, faces = units_(40).view(2, 20), noise(20, 6, 96, 96)
    with torch.no_grad():
        ours = renderer(units, faces)
    expected = slow(renderer.state_dict(), units, faces)
    assert ours.shape == (20, 3, 96, 96) and expected.std() > 0.02
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)


def test_published_names_and_shapes(request):
    path = request.config.rootpath.parent / "shared/reference/unit2av_keys.json"
    with torch.device("meta"):
        model = FaceRenderer()
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert len(own) == 274 and sum(parameter.numel() for parameter in model.parameters()) == 36_100_147
    assert own["face_decoder_blocks.3.0.conv_block.0.weight"] == [768, 384, 3, 3]
    if path.exists():
        assert own == json.loads(path.read_text())["face_renderer"]


def test_rows_do_not_influence_each_other(renderer):
    units, faces = units_(60).view(3, 20), noise(30, 6, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(renderer(units, faces)[10:20], renderer(units[1:2], faces[10:20]))


@pytest.mark.parametrize(
    "units, faces, error, words",
    [
        (torch.zeros(1, 19, dtype=torch.long), torch.zeros(10, 6, 96, 96), ShapeError, r"units: shape \(1, 19\)"),
        (torch.zeros(1, 20, dtype=torch.long), torch.zeros(9, 6, 96, 96), ShapeError, r"faces: shape \(9, 6, 96, 96\)"),
        (torch.full((1, 20), 40), torch.zeros(10, 6, 96, 96), ParameterError, "units: 40 at position 0.*K = 40"),
        (torch.zeros(1, 20, dtype=torch.long), torch.full((10, 6, 96, 96), 255.0), ParameterError, "Divide bytes"),
        (torch.zeros(1, 20, dtype=torch.long), torch.full((10, 6, 96, 96), torch.nan), ParameterError, "faces"),
    ],
)
def test_what_the_network_refuses(renderer, units, faces, error, words):
    with pytest.raises(error, match=words):
        renderer(units, faces)


# Files


def test_the_container_a_bare_file_and_our_own_folder(renderer, tmp_path):
    weights = renderer.state_dict()
    torch.save({"audio": {"en": {}}, "video": weights}, tmp_path / "container.pt")
    torch.save(weights, tmp_path / "bare.pt")
    renderer.save(tmp_path / "own")
    units, faces = units_(20).view(1, 20), noise(10, 6, 96, 96)
    for name in ("container.pt", "bare.pt", "own"):
        loaded = FaceRenderer.from_checkpoint(tmp_path / name)
        assert loaded.config == TINY and not loaded.training
        assert torch.equal(loaded(units, faces), renderer(units, faces))


def test_more_units_than_the_file_has_are_copies_of_its_last(renderer, tmp_path):
    torch.save(renderer.state_dict(), tmp_path / "bare.pt")
    larger = FaceRenderer.from_checkpoint(tmp_path / "bare.pt", num_embeddings=42)
    table = renderer.unit_embed.weight
    assert torch.equal(larger.unit_embed.weight, torch.cat([table, table[-1:], table[-1:]]))
    with pytest.raises(CheckpointError, match="40 units; expected at most num_embeddings=39"):
        FaceRenderer.from_checkpoint(tmp_path / "bare.pt", num_embeddings=39)


def test_files_that_do_not_fit(renderer, tmp_path):
    weights = renderer.state_dict()
    torch.save({name: value for name, value in weights.items() if name != "unit2lip.norm1.bias"}, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"1 missing \(unit2lip.norm1.bias\)"):
        FaceRenderer.from_checkpoint(tmp_path / "less.pt")
    torch.save(weights | {"more": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"1 unexpected \(more\)"):
        FaceRenderer.from_checkpoint(tmp_path / "more.pt")
    torch.save({"audio": {"en": weights}}, tmp_path / "sound.pt")
    with pytest.raises(CheckpointError):
        FaceRenderer.from_checkpoint(tmp_path / "sound.pt")


# Pictures


def bilinear(picture, height, width):
    """`(h, w, 3)` resized by the formula of OpenCV: centres of pixels meet, the edge goes on beyond itself."""

    def weights(size, before):
        out = np.zeros((size, before))
        for i in range(size):
            place = min(max((i + 0.5) * before / size - 0.5, 0), before - 1)
            out[i, int(place)] += 1 - place % 1
            out[i, min(int(place) + 1, before - 1)] += place % 1
        return out

    down, across = weights(height, picture.shape[0]), weights(width, picture.shape[1])
    return np.rint(np.stack([down @ picture[:, :, k].astype(float) @ across.T for k in range(3)], axis=2))


def published(renderer, frames, boxes, units, missing):
    """Published inference step by step; None as in the fork: a black window, the frame untouched."""
    frames, boxes, units = [frame.numpy() for frame in frames], list(boxes), units.tolist()
    if missing == "fill":
        for i in range(1, len(boxes)):
            boxes[i] = boxes[i - 1] if boxes[i] is None else boxes[i]
    wanted = len(units) // 2
    units += [units[-1]] * (-len(units) % 20)
    forth = list(range(len(frames)))
    while len(forth) < len(units) // 2:  # for one frame the published loop has no end
        forth += [0] if len(frames) == 1 else list(range(len(frames) - 2, -1, -1)) + list(range(1, len(frames)))
    frames, boxes = [frames[i] for i in forth], [boxes[i] for i in forth]
    windows, places = [], []
    for frame, box in zip(frames[: len(units) // 2], boxes, strict=False):
        x1, y1, x2, y2 = (0, 0, 0, 0) if box is None else (max(0, int(edge)) for edge in box)
        part = frame[y1:y2, x1:x2, ::-1]
        place = None if 0 in part.shape else (x1, y1, x1 + part.shape[1], y1 + part.shape[0])
        places.append(place)
        windows.append(np.zeros((96, 96, 3)) if place is None else bilinear(part, 96, 96) / 255)
    faces = torch.tensor(np.stack(windows)).permute(0, 3, 1, 2).float()
    masked = faces.clone()
    masked[:, :, 48:] = 0
    with torch.no_grad():
        new = renderer(torch.tensor(units).view(-1, 20), torch.cat([masked, faces], 1)).permute(0, 2, 3, 1).numpy()
    out = []
    for frame, place, face in zip(frames[:wanted], places, (new * 255).astype(np.uint8), strict=False):
        frame = frame.copy()
        if place:
            x1, y1, x2, y2 = place
            frame[y1:y2, x1:x2] = bilinear(face[:, :, ::-1], y2 - y1, x2 - x1)
        out.append(frame)
    return torch.tensor(np.stack(out))


INSIDE, LEAVES, OUTSIDE, EMPTY = (10.7, 5.2, 49.9, 44.0), (-8.0, 20.0, 30.4, 90.0), (70, 5, 90, 30), (0, 0, 0, 0)


@pytest.mark.parametrize(
    "boxes, count, missing",
    [
        ([INSIDE] * 13, 26, "keep"),
        ([INSIDE, None, LEAVES, OUTSIDE, EMPTY] * 2, 23, "keep"),  # an odd number of units, a video longer than them
        ([LEAVES, INSIDE, None], 27, "keep"),  # to and fro
        ([INSIDE, None, None, LEAVES, None], 27, "fill"),
        ([INSIDE], 9, "keep"),  # one frame
    ],
)
def test_frames_are_those_of_published_inference(renderer, boxes, count, missing):
    frames, units = pictures(len(boxes)), units_(count)
    ours = render(renderer, frames, boxes, units, missing=missing)
    expected = published(renderer, frames, boxes, units, missing)
    assert ours.shape == (count // 2, 50, 61, 3) and ours.dtype == torch.uint8
    assert (ours.int() - expected.int()).abs().max() <= 1
    assert (ours != frames[ping_pong(len(frames), count // 2)]).any()


def test_a_frame_without_a_face_is_left_alone_and_costs_nothing(renderer, monkeypatch):
    frames, boxes = pictures(30), [None if i % 3 == 0 else INSIDE for i in range(30)]
    drawn, draw = [], FaceRenderer.draw
    monkeypatch.setattr(FaceRenderer, "draw", lambda self, lips, x: drawn.append(len(x)) or draw(self, lips, x))
    ours = render(renderer, frames, boxes, units_(60))
    assert sum(drawn) == 20
    assert torch.equal(ours[::3], frames[::3])
    assert all((ours[i] != frames[i]).any() for i in range(30) if i % 3)
    assert torch.equal(render(renderer, frames, [None] * 30, units_(60)), frames) and sum(drawn) == 20
    assert torch.equal(frames, pictures(30))  # the caller's are not written to


def test_references(renderer):
    """Each gives what the network gives when it is shown those faces."""
    frames, units = pictures(40), units_(80)
    places = [None, *[(10, 5, 50, 45)] * 39]

    def expected(of):
        faces = torch.stack([crop_face(frames[i], places[1]) for i in range(40)]) / 255
        masked = faces.clone()
        masked[:, :, 48:] = 0
        with torch.no_grad():
            new = renderer(units.view(4, 20), torch.cat([masked, faces[[of(i) for i in range(40)]]], 1))
        new = (new * 255).byte()
        return torch.stack([frames[0], *(paste_face(frames[i], new[i], places[1]) for i in range(1, 40))])

    def ours(reference):
        return torch.stack(list(render_frames(renderer, frames, places, units, reference=reference)))

    for reference, of in [("same", lambda i: i), ("still", lambda i: 1), ("other", lambda i: max(1, i - 25))]:
        assert (ours(reference).int() - expected(of).int()).abs().max() <= 1, reference
    own = crop_face(frames[7], places[1])
    assert (ours(own).int() - expected(lambda i: 7).int()).abs().max() <= 1
    assert torch.equal(ours(None), ours("same"))  # the published default
    assert not torch.equal(ours("same"), ours("still"))


def test_a_feathered_edge_fades_in(renderer):
    picture, face = torch.zeros(60, 60, 3, dtype=torch.uint8), torch.full((3, 96, 96), 200, dtype=torch.uint8)
    hard = paste_face(picture, face, (10, 10, 50, 30))
    assert (hard[10:30, 10:50] == 200).all() and hard.sum() == 200 * 3 * 20 * 40
    soft = paste_face(picture, face, (10, 10, 50, 30), feather=0.25)  # over 10 columns, and 5 rows
    assert soft[20, 10:21, 0].tolist() == [round(200 * (i + 0.5) / 10) for i in range(10)] + [200]
    assert torch.equal(soft[:, :, 0], soft[:, :, 0].flip(1)) and soft[10, 30, 0] == 20 and soft[12, 30, 0] == 100
    frames = pictures(4)
    outer = render(renderer, frames, [INSIDE] * 4, units_(8), feather=0.3).int() - frames.int()
    assert outer[:, 5, 10].abs().max() <= 6  # the corner hardly changes


def test_to_and_fro_ends():
    assert ping_pong(4, 12) == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert ping_pong(2, 5) == [0, 1, 0, 1, 0] and ping_pong(1, 3) == [0, 0, 0] and ping_pong(5, 3) == [0, 1, 2]


def test_filling_at_the_beginning_takes_the_first_face():
    boxes = check_boxes([None, [0, 0, 9, 9], None, [0, 0, 0, 0], np.float32([1, 1, 5, 5]), None])
    first, second = (0, 0, 9, 9), (1, 1, 5, 5)
    assert face_places(boxes, 20, 20) == [None, first, None, None, second, None]
    assert face_places(boxes, 20, 20, "fill") == [first, first, first, first, second, second]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"boxes": [INSIDE] * 3}, "boxes: 3 boxes; expected 4, one for each frame"),
        ({"boxes": [INSIDE] * 3 + [(1, 2, 3)]}, r"boxes\[3\]: \(1, 2, 3\); expected four finite numbers"),
        ({"boxes": [INSIDE] * 3 + [(1, 2, 3, torch.nan)]}, r"boxes\[3\]"),
        ({"boxes": [INSIDE] * 3 + ["1234"]}, r"boxes\[3\]"),
        ({"boxes": None}, "boxes: None; expected a list"),
        ({"boxes": [None] * 4, "missing": "fill"}, "boxes: no face in 4 pictures of 61 x 50"),
        ({"missing": "skip"}, "missing: 'skip'; expected one of 'keep', 'fill'"),
        ({"reference": "stil"}, "Did you mean 'still'"),
        ({"feather": 0.6}, "feather: 0.6"),
        ({"units": torch.zeros(0, dtype=torch.long)}, r"units: shape \(0,\)"),
        ({"units": torch.tensor([0, 40])}, "units: 40 at position 1"),
        ({"units": torch.tensor([-1, 4])}, "units: -1 at position 0"),
        ({"frames": torch.zeros(4, 50, 61, 3)}, "frames: torch.float32"),
        ({"frames": pictures(4)[:0], "boxes": []}, "frames: torch.uint8 of shape"),
    ],
)
def test_what_rendering_refuses(renderer, change, words):
    given = {"frames": pictures(4), "boxes": [INSIDE] * 4, "units": units_(8)} | change
    with pytest.raises(ParameterError, match=words):
        render(renderer, **given)


def test_one_unit_has_no_frame_and_training_mode_is_kept(renderer):
    assert render(renderer, pictures(2), [None, None], units_(1)).shape == (0, 50, 61, 3)
    training = FaceRenderer(TINY)
    training.load_state_dict(renderer.state_dict())
    frames, boxes = pictures(3).numpy(), np.tile(np.float32(INSIDE), (3, 1))
    ours = render(training, frames, boxes, units_(6))
    assert training.training and torch.equal(ours, render(renderer, frames, boxes, units_(6)))


def test_frames_come_one_by_one(renderer):
    """Two rows of units are held, so that a video may be of any length."""
    taken = []
    frames = (taken.append(i) or frame for i, frame in enumerate(pictures(100)))
    stream = render_frames(renderer, frames, [None] * 100, units_(200))
    next(stream)
    assert len(taken) == 20
    with pytest.raises(ParameterError, match="frames: 30; expected 35"):
        list(render_frames(renderer, pictures(30), [None] * 35, units_(70)))
