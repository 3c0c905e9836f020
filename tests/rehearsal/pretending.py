"""A CUDA device that is pretended: tensors say "cuda:0" and have values, which lie in the memory of the CPU.

`torch`'s FakeTensorMode has such tensors without values, and code that looks at a value ends there. Here everything
runs to its end, and gives the numbers of the CPU. What a GPU would refuse is refused:

- tensors of two devices in one operation, unless one is a single number, or an index on the CPU;
- `numpy()` without `cpu()`, and random numbers from a generator of another device;
- half precision in an FFT whose size is no power of two, and bfloat16 in any.

Autocast is that of CUDA. Each time the CPU would wait for the device, the place in avlib is noted. There is no backward
pass: torch runs it on threads of a real device.
"""

import contextlib
import importlib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from avlib import training

harmonics = importlib.import_module("avlib.features.harmonics")  # its package has a function of this name

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ROOT = str(Path(__file__).parents[2] / "avlib")
_COPIES = {"aten::_to_copy", "aten::copy_"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::bincount"}
_READS |= {"aten::unique_consecutive", "aten::equal"}


class DevicesDifferError(RuntimeError):
    """What a GPU would refuse."""


class Pretended(Tensor):
    """A tensor that says it is on a GPU; `held` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CUDA
        )
        made.held = held
        return made

    def __repr__(self):
        return f"Pretended({self.held!r})"

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """Inside this context `device="cuda"` works. `waits` has the places at which the CPU waits for the device."""

    def __init__(self):
        super().__init__()
        self.waits, self.patches = set(), contextlib.ExitStack()

    @staticmethod
    @contextlib.contextmanager
    def allowed():
        """Allow autocast of CUDA, for tensors of another mode."""
        before = torch.cuda.amp.common.amp_definitely_not_available, torch.cuda.is_bf16_supported
        torch.cuda.amp.common.amp_definitely_not_available = lambda: False
        torch.cuda.is_bf16_supported = lambda *_: True
        try:
            yield
        finally:
            torch.cuda.amp.common.amp_definitely_not_available, torch.cuda.is_bf16_supported = before

    def __enter__(self):
        torch._C._ensureCUDADeviceGuardSet()
        self.patches.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor([1], device="cuda") begins on the CPU
        replaced = [
            (torch.cuda, "_lazy_init", lambda: None),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda *_: True),
            (torch.cuda, "mem_get_info", lambda *_: (2**33, 2**34)),
            (torch.cuda, "memory_reserved", lambda *_: 0),
            (torch.cuda, "memory_allocated", lambda *_: 0),
            (training, "chosen_device", lambda wanted=None: CPU if str(wanted) == "cpu" else CUDA),
            # Gradients need no less memory here, and it asks a device for its random state.
            (harmonics, "checkpoint", lambda function, *given, **_: function(*given)),
        ]
        for owner, name, value in replaced:
            self.patches.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        self.patches.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # else parameters stay what they were
        self.patches.enter_context(torch.backends.cudnn.flags(enabled=False))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.patches.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.waits)


def _run(func, args, kwargs, waits=None):
    name, given = func._schema.name, [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in given if isinstance(tensor, Pretended)]
    wanted = kwargs.get("device")
    on_gpu = bool(there) if wanted is None else torch.device(wanted).type == "cuda"
    if there:
        _refuse_mixed(name, args, given)
        _refuse_half(name, there, args)
    if (generator := kwargs.get("generator")) is not None and on_gpu:
        raise DevicesDifferError(f"{name} on cuda with a generator on {generator.device}")
    if waits is not None and there and _waits(name, on_gpu, args):
        waits.add(_place())
    if wanted is not None:
        kwargs = kwargs | {"device": CPU}
    if there and torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # the shape that the outside sees
    known = {id(tensor.held): tensor for tensor in there}
    args, kwargs = tree_map_only(Pretended, lambda tensor: tensor.held, (args, kwargs))
    made = _computed(name, func, args, kwargs)
    if on_gpu and name in _COPIES and made is args[0]:
        made = made.clone()

    def wrapped(tensor):
        return known.get(id(tensor)) if id(tensor) in known else Pretended(tensor) if on_gpu else tensor

    return tree_map_only(Tensor, wrapped, made)


def _computed(name, func, args, kwargs):
    if name == "aten::_fused_sdp_choice":
        return 0  # the formula: the kernels of a GPU are not here
    if name == "aten::_thnn_fused_lstm_cell":
        gates, cell = args[0] + args[1] + sum(each for each in args[3:] if each is not None), args[2]
        entered, kept, new, shown = gates.chunk(4, 1)
        cell = kept.sigmoid() * cell + entered.sigmoid() * new.tanh()
        return shown.sigmoid() * cell.tanh(), cell, gates
    if name in ("aten::_softmax", "aten::_log_softmax") and args[2]:  # in half precision, to float32
        return func(args[0].float(), args[1], False)
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        if "not implemented for" not in str(error):
            raise
    # The CPU lacks this operation in half precision, which a GPU has.
    half = next(leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
    args, kwargs = tree_map_only(Tensor, lambda t: t.float() if t.dtype is half else t, (args, kwargs))
    return tree_map_only(Tensor, lambda t: t.to(half) if t.dtype is torch.float32 else t, func(*args, **kwargs))


def _refuse_mixed(name, args, given):
    if name in _COPIES:
        return
    others = [tensor for tensor in given if not isinstance(tensor, Pretended) and tensor.dim()]
    if name in _INDEXED and isinstance(args[0], Pretended):  # by indices of any device
        others = [tensor for tensor in args[2:3] if not isinstance(tensor, Pretended) and tensor.dim()]
    if others:
        where = ", ".join(f"{tuple(t.shape)} on {'cuda' if isinstance(t, Pretended) else 'cpu'}" for t in given)
        raise DevicesDifferError(f"{name} of tensors {where}, at {_place()}")


def _refuse_half(name, there, args):
    """As cuFFT does."""
    if not name.startswith("aten::_fft_") or there[0].dtype not in (torch.float16, torch.bfloat16, torch.complex32):
        return
    sizes = [there[0].shape[axis] for axis in args[1]]
    if there[0].dtype is torch.bfloat16 or any(size & (size - 1) for size in sizes):
        raise DevicesDifferError(f"{name} in {there[0].dtype} of sizes {sizes}, at {_place()}")


def _waits(name, on_gpu, args):
    if name == "aten::index":
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return name in _READS or (name in _COPIES and not on_gpu)


def _place():
    """Return the innermost place in avlib that is running, as file:function."""
    frame, own = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(ROOT):
            return f"{Path(file).relative_to(ROOT)}:{frame.f_code.co_name}"
        if not own and not file.startswith((str(Path(torch.__file__).parent), __file__)):
            own = f"{Path(file).name}:{frame.f_code.co_name}"
        frame = frame.f_back
    return own


def moved(value):
    """Return a nest of tensors, or a model, on the pretended device."""
    if isinstance(value, nn.Module):
        return value.to("cuda")
    return tree_map_only(Tensor, lambda tensor: tensor.to("cuda"), value)


@contextlib.contextmanager
def autocast(dtype):
    """Autocast of CUDA to a dtype; None: none."""
    with torch.autocast("cuda", dtype=dtype) if dtype else contextlib.nullcontext():
        yield


def back(value):
    """Return a nest of tensors on the CPU; all must have been on the device."""
    leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    left = [tuple(leaf.shape) for leaf in leaves if not isinstance(leaf, Pretended)]
    assert leaves and not left, f"results on the CPU: {left}"
    return tree_map_only(Pretended, lambda tensor: tensor.held.detach(), value)
