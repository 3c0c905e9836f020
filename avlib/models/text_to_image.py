"""A text-to-image model of diffusers, and LoRA for its UNet.

The same class holds Stable Diffusion and the tiny model of the workbook. A folder gives weights and settings alone;
the classes are chosen here, not by `model_index.json`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checkpoints
from ..cache import publishing
from ..errors import CheckpointError, ParameterError, first_line
from . import fetched, quiet

# What a folder must hold: of each part, its settings, and one of these endings if it has weights.
_SETTINGS = {"tokenizer": "tokenizer_config.json", "text_encoder": "config.json", "unet": "config.json"}
_SETTINGS |= {"vae": "config.json", "scheduler": "scheduler_config.json"}
_WEIGHTS = ("text_encoder", "unet", "vae")
_ENDINGS = (".safetensors", ".bin")


class TextToImage(nn.Module):
    """The parts of a Stable Diffusion; `vae` is an AutoencoderKL, or `PatchPCA`, which has its interface."""

    def __init__(self, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer: object, scheduler: object):
        super().__init__()
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler

    @cached_property
    def pipeline(self):
        """The StableDiffusionPipeline of these modules, without safety checker."""
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline(
            unet=self.unet, vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer,
            scheduler=self.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def noise_scheduler(self):
        """The scheduler that adds noise in training, with the sampler's settings."""
        from diffusers import DDPMScheduler

        return DDPMScheduler.from_config(self.scheduler.config)

    def save_pretrained(self, folder: Path | str) -> None:
        with quiet():
            self.pipeline.save_pretrained(folder)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch latents rows columns"]:
        """Scaled latents of images in [-1, 1]: the mean of their distribution."""
        return self.vae.encode(images).latent_dist.mean * self.vae.config.scaling_factor

    def encode_prompts(self, prompts: str | Sequence[str]) -> Float[Tensor, "batch words values"]:
        """Last hidden states of the text encoder, `(B, 77, 768)`."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(input_ids=ids.input_ids.to(self.text_encoder.device)).last_hidden_state

    @torch.no_grad()
    def generate(
        self, prompt_embeds: Float[Tensor, "batch words values"], seed: int | Sequence[int] = 0, steps: int = 50,
        guidance: float | int = 7.5,
    ) -> Float[Tensor, "batch 3 height width"]:  # fmt: skip
        """Generate images in [0, 1] from embedded prompts, through the pipeline, in the size of the UNet's training.

        One `seed` gives all rows the same first noise, several give one each. `guidance` 1 is none.
        """
        side, device = self.unet.config.sample_size, prompt_embeds.device
        shape = (1, self.unet.config.in_channels, *((side, side) if isinstance(side, int) else side))
        seeds = [seed] if isinstance(seed, int) else seed
        noises = [torch.randn(shape, generator=torch.Generator().manual_seed(each)) for each in seeds]
        noise = torch.cat(noises).to(device, prompt_embeds.dtype)
        with warnings.catch_warnings():
            # diffusers asks NumPy for an array of a tensor, in a way that NumPy 2 will no longer understand
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return self.pipeline(
                prompt_embeds=prompt_embeds, negative_prompt_embeds=self.encode_prompts("").expand_as(prompt_embeds),
                latents=noise.expand(len(prompt_embeds), *shape[1:]).clone(), num_inference_steps=steps,
                guidance_scale=guidance, output_type="pt",
            ).images  # fmt: skip

    @classmethod
    def from_pretrained(cls, source: Path | str) -> TextToImage:
        """Read a folder in diffusers' layout, or download the five parts of a hub id: CompVis/stable-diffusion-v1-4."""
        folder = Path(source)
        if not folder.is_dir():
            patterns = [f"{part}/*{end}" for part in _SETTINGS for end in (".json", ".txt", ".safetensors")]
            folder = fetched(str(source), "a folder in diffusers' layout", patterns, ["*.fp16.*", "*.non_ema.*"])
        _require_parts(folder)
        parts = {}
        for name, kind in _classes(folder).items():
            try:
                with quiet():
                    parts[name] = kind.from_pretrained(folder / name, local_files_only=True)
            except Exception as error:  # of any class: libraries fail in many ways on damaged files
                found = f"cannot be read ({first_line(error)})"
                raise CheckpointError(folder / name, found, _expected(name)) from error
        return cls(**parts).eval()


def _classes(folder: Path) -> dict[str, type]:
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    from .tiny_diffusion import PatchPCA

    autoencoders = {"AutoencoderKL": diffusers.AutoencoderKL, "PatchPCA": PatchPCA}
    autoencoder = _class_of(folder, "vae", "AutoencoderKL")
    if autoencoder not in autoencoders:
        raise CheckpointError(folder / "vae", f"is {autoencoder!r}", f"one of {', '.join(autoencoders)}")
    name = _class_of(folder, "scheduler", "PNDMScheduler")
    scheduler = getattr(diffusers, name, None)
    if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
        raise CheckpointError(folder / "scheduler", f"{name!r} is no scheduler of diffusers", "one of them")
    found = {"tokenizer": CLIPTokenizer, "text_encoder": CLIPTextModel, "unet": diffusers.UNet2DConditionModel}
    return found | {"vae": autoencoders[autoencoder], "scheduler": scheduler}


def _class_of(folder: Path, part: str, usual: str) -> str:
    path = folder / part / _SETTINGS[part]
    try:
        return json.loads(path.read_text()).get("_class_name", usual)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(path, f"cannot be read ({error})", _expected(part)) from error


def _require_parts(folder: Path) -> None:
    """Refuse a folder that lacks a part, by the part's name."""
    for part, settings in _SETTINGS.items():
        if not (folder / part).is_dir():
            there = ", ".join(name for name in _SETTINGS if (folder / name).is_dir()) or "none of them"
            raise CheckpointError(
                folder, f"has no {part} (of its parts, {there})", f"the folders {', '.join(_SETTINGS)}",
                "Download the whole model, in the layout of diffusers.",
            )  # fmt: skip
        if not (folder / part / settings).is_file():
            raise CheckpointError(folder / part, f"has no {settings}", _expected(part), "Download it again.")
        if part in _WEIGHTS and not any(path.suffix in _ENDINGS for path in (folder / part).iterdir()):
            raise CheckpointError(folder / part, "has no weights", _expected(part), "Download it again.")


def _expected(part: str) -> str:
    return f"{_SETTINGS[part]} and weights ({' or '.join(_ENDINGS)})" if part in _WEIGHTS else _SETTINGS[part]


_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name for it in a folder
_LINEAR = r".*\.attn[12]\.to_(q|k|v|out\.0)"


def add_lora(unet: nn.Module, rank: int = 4) -> list[nn.Parameter]:
    """Add LoRA to the linear layers of the UNet's attentions, through peft.

    Each weight W becomes W + B A, with B zero at first. Source: Hu et al., "LoRA", ICLR 2022. The UNet, diffusers'
    `UNet2DConditionModel`, is changed in place and its own parameters are frozen; one that has LoRA is refused. Rank 4
    is published: 797,184 parameters in Stable Diffusion 1.4.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ParameterError("rank", f"{rank}", "1 or more")
    _linears(unet)
    if lora_parameters(unet):
        raise ParameterError("unet", "has LoRA already", "one without", "Call unet.unload_lora() first.")
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_LINEAR))
    return lora_parameters(unet)


def lora_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """Parameters of the UNet's LoRA, in a fixed order; none without LoRA."""
    return [parameter for name, parameter in unet.named_parameters() if ".lora_" in name]


def save_lora(unet: nn.Module, path: Path | str) -> None:
    """Write LoRA as diffusers does, for `pipeline.load_lora_weights(path)`, to a .safetensors file or into a folder."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if not lora_parameters(unet):
        raise ParameterError("unet", "has no LoRA", "one to which add_lora gave it")
    file = Path(path) if Path(path).suffix == ".safetensors" else Path(path) / _FILE
    tensors = {f"unet.{name}": tensor.contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    with publishing(file) as unfinished:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, {"format": "pt"})


def load_lora(unet: nn.Module, path: Path | str) -> list[nn.Parameter]:
    """Load a file of LoRA into the UNet, replacing any other.

    Args:
        unet: changed in place; the LoRA must be of exactly its attentions.
        path: a file that AudioToken or diffusers wrote in 2023 (names such as `attn1.processor.to_q_lora.down.weight`)
            or that diffusers or `save_lora` writes today (`attn1.to_q.lora_A.weight`, perhaps after `unet.`); or the
            folder that today's is in.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft
    from peft import set_peft_model_state_dict

    file = Path(path) / _FILE if Path(path).is_dir() else Path(path)
    tensors = {name.removeprefix("unet."): tensor for name, tensor in checkpoints.read(file).tensors.items()}
    tensors = convert_unet_state_dict_to_peft(tensors)
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name and tensor.ndim == 2}
    if len(ranks) != 1 or 0 in ranks:
        found = f"has ranks {sorted(ranks)}" if ranks else "holds no LoRA of attention"
        advice = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
        raise CheckpointError(file, found, "a LoRA of one rank, as AudioToken's", advice)
    (rank,) = ranks
    expected = {}
    for name, linear in _linears(unet).items():
        expected[f"{name}.lora_A.weight"] = torch.empty(rank, linear.in_features, device="meta")
        expected[f"{name}.lora_B.weight"] = torch.empty(linear.out_features, rank, device="meta")
    checkpoints.require_fit(file, expected, tensors)  # peft would only warn

    if lora_parameters(unet):
        unet.unload_lora()
    add_lora(unet, rank)
    scale = _alpha(file, rank) / rank
    scaled = {name: scale * tensor if ".lora_B." in name else tensor for name, tensor in tensors.items()}
    set_peft_model_state_dict(unet, scaled)
    return lora_parameters(unet)


def _linears(unet: nn.Module) -> dict[str, nn.Module]:
    found = {name: module for name, module in unet.named_modules() if re.fullmatch(_LINEAR, name)}
    if not found:
        raise ParameterError("unet", "has no attention to text (attn1, attn2)", "a UNet2DConditionModel of diffusers")
    return found


def _alpha(file: Path, rank: int) -> float | int:
    """LoRA's alpha, if a file's header has it; else the rank."""
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        return rank
    with safe_open(file, "pt") as opened:
        written = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        settings = json.loads(written)
    except (ValueError, RecursionError):
        return rank
    settings = settings if isinstance(settings, Mapping) else {}
    alpha = settings.get("lora_alpha", settings.get("unet.lora_alpha"))
    return alpha if isinstance(alpha, float | int) else rank
