"""Samplers of a diffusion model, from diffusers, for any function that predicts noise or the clean data.

`sample_with` needs no network: the exact answer for a known distribution takes its place where samplers are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError, check_choice, check_whole

_BY_INTERVAL = {  # at t = 0, s, 2s, ..., as published
    "plms": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "ddpm": (DDPMScheduler, {"variance_type": "fixed_small", "clip_sample": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
}
_BY_SNR = {  # at equal distances of log(alpha / sigma), down to the noise of t = 0
    "unipc": (UniPCMultistepScheduler, {"solver_type": "bh2", "use_exponential_sigmas": True}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_lu_lambdas": True}),
}
SAMPLERS = (*_BY_INTERVAL, *_BY_SNR)


def linear_betas(steps: int = 1000, max_beta: float | int = 0.02) -> Float[Tensor, " steps"]:
    """Noise that each step adds, from 1e-4 to `max_beta`, in float64."""
    return torch.linspace(1e-4, max_beta, steps, dtype=torch.float64)


def schedule(betas: Float[Tensor, " steps"]) -> dict[str, Float[Tensor, " steps"]]:
    """The published tables: computed in float64, kept in float32."""
    alphas = 1 - betas
    kept = alphas.cumprod(0)
    before = F.pad(kept[:-1], (1, 0), value=1.0)
    variance = betas * (1 - before) / (1 - kept)
    tables = {
        "betas": betas, "alphas_cumprod": kept, "alphas_cumprod_prev": before, "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(), "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(), "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - kept),
        "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - kept),
    }  # fmt: skip
    return {name: table.float() for name, table in tables.items()}


@torch.no_grad()
def sample_with(
    predict: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "batch ..."], steps: int = 100,
    sampler: str = "plms", *, betas: Float[Tensor, " times"] | None = None,
    predicts: Literal["noise", "x0"] = "noise", depth: int | None = None, generator: torch.Generator | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Float[Tensor, "batch ..."]:  # fmt: skip
    """Turn noise into samples, with the noise of t = 0 left in them but by "ddpm" and "ddim" of predicted clean data.

    Args:
        predict: maps noisy data and times `(B,)` to the noise in it or to the clean data, of the same shape.
        x: normal noise; with `depth`, data with the noise of time `depth - 1`.
        steps: of a run through all times. "plms" evaluates `predict` once more than that, and its last step, from
            t = 0 to t = 0, changes nothing, as published.
        sampler: "plms" (published, linear multistep; here PNDM without Runge-Kutta steps), "ddpm" (ancestral, with
            fresh noise and clean data clipped to [-1, 1]), "ddim"; "unipc" and "dpm++" of order 2, spaced by log-SNR.
        betas: None: `linear_betas()`.
        depth: number of times to go through; None: all. A shallow run makes the same share of the steps, two at least.
        generator: of the noise that "ddpm" adds.
        progress: is called with the number of evaluations done and their total.

    Raises:
        ParameterError: steps or depth out of range, too few, or, for "plms", no divisor of the number of times.
    """
    betas = linear_betas() if betas is None else betas.detach().double().cpu()
    count = len(betas)
    check_choice("sampler", sampler, SAMPLERS)
    check_choice("predicts", predicts, ("noise", "x0"))
    depth = count if depth is None else depth
    check_whole("steps", steps, 2, count)
    check_whole("depth", depth, 2, count)
    kind = {"prediction_type": "epsilon" if predicts == "noise" else "sample"}
    scheduler, times = (_by_interval if sampler in _BY_INTERVAL else _by_snr)(sampler, betas, steps, kind, depth)

    shape, dtype = x.shape, x.dtype
    x = x if dtype in (torch.float32, torch.float64) else x.float()
    given = {"generator": generator} if sampler == "ddpm" else {}
    for done, time in enumerate(times, 1):
        output = predict(x.to(dtype), torch.full((len(x),), time, device=x.device)).to(x.dtype)
        if sampler == "plms" and predicts == "x0":  # PNDM takes noise alone
            alpha = scheduler.alphas_cumprod[time].double()
            output = (x - float(alpha.sqrt()) * output) / float((1 - alpha).sqrt())
        # UniPC wants two axes.
        x = scheduler.step(output.reshape(len(x), -1), time, x.reshape(len(x), -1), **given).prev_sample.reshape(shape)
        if progress is not None:
            progress(done, len(times))
    return x.to(dtype)


def _by_interval(sampler: str, betas: Tensor, steps: int, predicts: dict, depth: int) -> tuple[object, list[int]]:
    count, expected = len(betas), f'a divisor of {len(betas)} for "plms"'
    if sampler == "plms" and count % steps:
        near = min((n for n in range(2, count + 1) if count % n == 0), key=lambda n: abs(n - steps))
        raise ParameterError("steps", f"{steps}", expected, f"Use {near}, or another sampler.")
    interval = count // steps
    times = [time for time in reversed(range(0, steps * interval, interval)) if time < depth]
    if len(times) < 2:
        found = f"{steps} for {count} times, of which {depth} are gone through in one step"
        raise ParameterError("steps", found, f'two steps or more for "{sampler}"', "Take more, or a larger depth.")
    kind, options = _BY_INTERVAL[sampler]
    options = options if sampler == "plms" else options | predicts  # PNDM is handed noise, see above
    scheduler = kind(num_train_timesteps=count, trained_betas=betas.tolist(), **options)
    # In float64 before they are rounded, as published; diffusers multiplies in float32.
    scheduler.alphas_cumprod = (1 - betas).cumprod(0).float()
    if sampler != "ddpm":
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(steps)
    return scheduler, [times[0], times[1], *times[1:]] if sampler == "plms" else times


def _by_snr(sampler: str, betas: Tensor, steps: int, predicts: dict, depth: int) -> tuple[object, list[int]]:
    """Scheduler and times of which the first is `depth - 1`."""
    kind, options = _BY_SNR[sampler]
    options = options | predicts | {"solver_order": 2, "final_sigmas_type": "sigma_min"}
    scheduler = kind(num_train_timesteps=depth, trained_betas=betas[:depth].tolist(), **options)
    scheduler.alphas_cumprod = (1 - betas[:depth]).cumprod(0).numpy()  # of a tensor NumPy warns
    scheduler.set_timesteps(max(2, round(steps * depth / len(betas))))
    scheduler.set_begin_index(0)
    return scheduler, scheduler.timesteps.tolist()
