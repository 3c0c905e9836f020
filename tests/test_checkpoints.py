import hashlib
import json
import os
import pickle
import resource
import signal
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.serialization import set_crc32_options

from avlib import checkpoints
from avlib.errors import CacheError, CheckpointError

TENSORS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


class Marker:
    """A pickle of it, once read without care, leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def write(path, kind):
    if kind == "safetensors":
        save_file(TENSORS, path)
    elif kind == "old":
        torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    elif kind == "module.":
        torch.save({f"module.{name}": tensor for name, tensor in TENSORS.items()}, path)
    elif kind in ("model", "state_dict"):
        torch.save({kind: {f"module.{name}": tensor for name, tensor in TENSORS.items()}, "epoch": 3}, path)
    else:
        torch.save(TENSORS, path)
    return path


@pytest.mark.parametrize("kind", ["plain", "old", "safetensors", "module.", "model", "state_dict"])
def test_reading(tmp_path, kind):
    tensors, config = checkpoints.read(write(tmp_path / "weights", kind))  # the ending of the name does not matter
    assert tensors.keys() == TENSORS.keys() and config == {}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_saving_and_reading_back(tmp_path):
    path = tmp_path / "step"
    for value in (1, 2):  # the second replaces the first
        checkpoints.save(path, {"w": torch.full((3, 2), float(value)).T}, {"value": value})
    tensors, config = checkpoints.read(str(path))
    assert torch.equal(tensors["w"], torch.full((2, 3), 2.0)) and config == {"value": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["step"]
    assert json.loads((path / "config.json").read_text()) == config


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "step"
    checkpoints.save(path, {"w": torch.ones(4)}, {})
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CacheError, match="File too large"):
            checkpoints.save(path, {"w": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoints.read(path).tensors["w"].tolist() == [1.0] * 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["step"]


@pytest.mark.parametrize("old", [False, True])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, old):
    mark, path = tmp_path / "executed", tmp_path / "weights.pth"
    torch.save({**TENSORS, "extra": Marker(mark)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=r"more than tensors .*open.*nothing in it was executed"):
        checkpoints.read(path)
    path.write_bytes(pickle.dumps(Marker(mark), protocol=2))
    with pytest.raises(CheckpointError):
        checkpoints.read(path)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["plain", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_files(tmp_path, kind, share):
    path = write(tmp_path / "weights", kind)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="weights: is "):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b'{"data":{"video_id": "x"}}', "JSON"),
        (b"\n <!DOCTYPE html>", "error page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (b"GGUF\x03", "GGUF"),
        (b"cposix\nsystem\n(Vtrue\ntR.", "asks for posix.system"),
        (bytes(64), "something else"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        checkpoints.read(path)


class Shell:
    def __reduce__(self):
        return (os.system, ("true",))


class Zeros:
    def __reduce__(self):
        return (bytearray, (2**36,))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_that_asks_for_more_is_called_what_it_is(tmp_path, protocol):
    path = tmp_path / "weights.pt"
    for content, words in ((Shell(), "posix.system"), (nn.Linear(2, 2), "torch.nn.modules.linear.Linear")):
        path.write_bytes(pickle.dumps({"w": content}, protocol=protocol))
        with pytest.raises(
            CheckpointError, match=rf"more than tensors \(it asks for .*{words}.*nothing in it was exec"
        ):
            checkpoints.read(path)
    torch.save({"w": Zeros()}, path)  # 64 GiB
    with pytest.raises(CheckpointError, match=r"asks for __builtin__\.bytearray"):
        checkpoints.read(path)
    torch.save(TENSORS, path, pickle_protocol=protocol)
    if protocol == 2:
        assert checkpoints.read(path).tensors.keys() == TENSORS.keys()
    else:
        with pytest.raises(CheckpointError, match=f"is a pickle of protocol {protocol};.*Save it by torch.save"):
            checkpoints.read(path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_programs_and_bombs_are_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="is a program"):
        checkpoints.read(tmp_path / "script.pt")
    with (
        zipfile.ZipFile(write(tmp_path / "w.pt", "plain")) as archive,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, bytes(20_000_000) if name.endswith("data/0") else archive.read(name))
    with pytest.raises(CheckpointError, match=r"unpacks from [\d,]{6} bytes to 20,0.*before anything was unpacked"):
        checkpoints.read(tmp_path / "bomb.pt")
    for value in (torch.ones(1).expand(2**33), torch.ones(2, device="meta"), torch.eye(2).to_sparse()):
        torch.save({"w": value}, tmp_path / "none.pt")
        with pytest.raises(CheckpointError, match="without values"):
            checkpoints.read(tmp_path / "none.pt")


def test_a_flipped_bit_in_an_archive_is_found(tmp_path):
    path = write(tmp_path / "weights.pt", "plain")
    content = path.read_bytes()
    place = content.index(TENSORS["layer.weight"].numpy().tobytes()) + 5
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(CheckpointError, match=r"weights\.pt: is damaged: the checksum of .*/data/. is wrong"):
        checkpoints.read(path)
    set_crc32_options(False)
    try:
        checkpoints.read(write(path, "plain"))  # written without checksums, which torch allows
    finally:
        set_crc32_options(True)


def test_a_flipped_bit_in_saved_weights_is_found(tmp_path):
    checkpoints.save(tmp_path / "it", TENSORS, {"layers": 1})
    path, sums = tmp_path / "it" / "model.safetensors", tmp_path / "it" / "SHA256SUMS"
    assert sums.read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  model.safetensors\n"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    for read in (lambda: checkpoints.read(path.parent), lambda: checkpoints.read(path)):
        with pytest.raises(CheckpointError, match=r"is damaged: its checksum .* delete SHA256SUMS"):
            read()
    sums.write_text("0 *other.pt\n\nnonsense")  # of other files: as good as none
    checkpoints.read(path)
    sums.unlink()
    assert checkpoints.read(path.parent).config == {"layers": 1}


def test_numpy_archives_and_other_contents(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    np.save(tmp_path / "a.npy", np.ones(3))
    for name, content in {"list": [1, 2], "epoch": {"epoch": 3}, "empty": {}, "bare": torch.ones(2)}.items():
        torch.save(content, tmp_path / name)
    for name, words in {
        "a.npz": r"zip archive.*npz.*w\.npy",
        "a.npy": "NumPy array",
        "list": "is a list",
        "epoch": "other things than tensors.*epoch",
        "empty": "other things than tensors",
        "bare": "is a Tensor",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            checkpoints.read(tmp_path / name)


def test_what_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.pth: No such file"):
        checkpoints.read(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        checkpoints.read(tmp_path)
    checkpoints.save(tmp_path / "step", TENSORS, {})
    (tmp_path / "step" / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="JSON object"):
        checkpoints.read(tmp_path / "step")
    (tmp_path / "step" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        checkpoints.read(tmp_path / "step")
    (tmp_path / "step" / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError, match=r"is not JSON .*recursion"):
        checkpoints.read(tmp_path / "step")
    (tmp_path / "step" / "config.json").write_text('\ufeff{"a": 1}')
    assert checkpoints.read(tmp_path / "step").config == {"a": 1}


def test_loading_says_all_that_does_not_fit():
    model = nn.Sequential(nn.Linear(3, 2))
    tensors = {"0.weight": torch.zeros(3, 2), **{f"other.{i}": torch.zeros(1) for i in range(5)}}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(model, "weights.pth", tensors)
    message = str(caught.value)
    assert message.startswith("weights.pth: does not fit the model: 1 missing (0.bias)")
    assert "5 unexpected (other.0, other.1, other.2, ...)" in message
    assert "0.weight is (3, 2) for (2, 3)" in message and "something else, with 6 tensors" in message


def test_loading_keeps_device_dtype_and_what_is_trained():
    model = nn.Linear(3, 2).double().requires_grad_(False)
    tensors = {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.ones(2), "decoder.x": torch.ones(1)}
    checkpoints.load(model, "weights.pth", tensors, ignored=("decoder.",))
    assert model.weight.dtype == torch.float64 and not model.weight.requires_grad and (model.weight == 1).all()


def test_parts_that_must_be_absent():
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    before, tensors = model["head"].weight.clone(), {"body.weight": torch.ones(2, 2), "body.bias": torch.ones(2)}
    checkpoints.load(model, "weights.pth", tensors, absent=("head.",))
    assert torch.equal(model["head"].weight, before) and (model["body"].weight == 1).all()
    with pytest.raises(CheckpointError, match=r"1 unexpected \(head\.bias\)"):
        checkpoints.load(model, "weights.pth", {**tensors, "head.bias": torch.ones(2)}, absent=("head.",))


def test_settings_beside_the_weights(tmp_path):
    torch.save({"cfg": {"layers": 3}, "model": TENSORS}, tmp_path / "beats.pt")
    found = checkpoints.read(tmp_path / "beats.pt")
    assert found.config == {"cfg": {"layers": 3}} and found.tensors.keys() == TENSORS.keys()
    torch.save({"cfg": 3, "model": TENSORS}, tmp_path / "odd.pt")
    assert checkpoints.read(tmp_path / "odd.pt").config == {}


def test_a_table_that_has_several_names(tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    checkpoints.save(tmp_path / "tied", {"a": table, "b": table, "c": table.T, "d": table[1]}, {})
    found = checkpoints.read(tmp_path / "tied").tensors
    assert found.keys() == {"a", "b", "c", "d"}
    assert torch.equal(found["a"], table) and torch.equal(found["b"], table)
    assert torch.equal(found["c"], table.T) and torch.equal(found["d"], table[1])


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("encoder.layers.0.self_attn.grep_a", "post_extract_proj.weight", "predictor.weight"), "BEATs with a class"),
        (("encoder.layers.0.self_attn.grep_a", "post_extract_proj.weight"), "BEATs"),
        (("fc1.weight", "fc2.weight", "fga.reduce_potentials.0.weight"), "an embedder of AudioToken"),
    ],
)
def test_what_files_of_audiotoken_seem_to_be(names, kind):
    assert checkpoints.seems_to_be(dict.fromkeys(names, torch.ones(1))).startswith(kind)


def test_a_container_of_several_models(tmp_path):
    models = {
        "audio": {"en": {"weight": torch.ones(2)}, "ko": {"weight": torch.zeros(3)}},
        "video": {"bias": torch.ones(1)},
    }
    torch.save(models, tmp_path / "all.pt")
    assert checkpoints.read(tmp_path / "all.pt", "audio", "ko").tensors["weight"].shape == (3,)
    assert set(checkpoints.read(tmp_path / "all.pt", "video").tensors) == {"bias"}
    with pytest.raises(CheckpointError, match="audio has no 'fr'; expected one of those there: en, ko"):
        checkpoints.read(tmp_path / "all.pt", "audio", "fr")
    torch.save({"generator": {"weight": torch.ones(2)}}, tmp_path / "bare.pt")
    assert set(checkpoints.read(tmp_path / "bare.pt", "audio", "fr").tensors) == {"weight"}  # no container
    assert checkpoints.contents(tmp_path / "all.pt")["video"]["bias"] == 1
