"""What is learned without labels: to fill in what was hidden, and to find the partner among others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from ..errors import ParameterError


def normalize_patches(
    patches: Float[Tensor, "batch patches values"], eps: float = 1e-6
) -> Float[Tensor, "batch patches values"]:
    """Each patch minus its mean, over its standard deviation (of the unbiased variance, as published)."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + eps) ** 0.5


def masked_patch_error(
    prediction: Float[Tensor, "batch patches values"],
    target: Float[Tensor, "batch patches values"],
    removed: Float[Tensor, "batch patches"],
) -> Float[Tensor, ""]:
    """Mean squared error over the removed patches of a batch; what a model could see does not count.

    Source: CAV-MAE, `forward_mae_loss`; paper equation 7.

    Args:
        prediction: `(batch, patches, values)`.
        target: likewise.
        removed: `(batch, patches)`, 1 = removed, as published.

    Returns:
        A scalar; NaN where no patch is removed, as a mean over nothing is.
    """
    error = (prediction - target).square().mean(dim=-1)  # (batch, patches)
    return (error * removed).sum() / removed.sum()


def contrastive_loss(
    audio: Float[Tensor, "batch width"],
    image: Float[Tensor, "batch width"],
    *,
    temperature: float = 0.05,
    both_directions: bool = False,
    gather: bool = True,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How well each picture picks its own sound among all sounds of the batch (InfoNCE on cosine similarity).

    For picture j, loss = -log(exp(s_jj / t) / sum_i exp(s_ij / t)), s_ij the cosine between sound i and picture j:
    small where s_jj is large and the other s_ij are small. Source: CAV-MAE, `forward_contrastive`.

    Args:
        audio: `(batch, width)`, one vector for each clip's sound.
        image: `(batch, width)`, one for its picture.
        temperature: divides the cosines; 0.05 as published.
        both_directions: averages with the loss of sounds that pick pictures. The published trainings do not.
        gather: where `torch.distributed` runs several processes, let the clips of all of them compete. The result is
            that of one process with the whole batch, on each; its gradients too, once they are averaged as
            DistributedDataParallel does. All processes must call, with batches of one size. False is the published
            form: negatives of the same process only.

    Returns:
        The loss, and the share of pictures whose own sound is the most similar (averaged over directions). In float32,
        or float64 if the vectors are that.

    Raises:
        ParameterError: a batch of one, which has no negatives: the loss would be 0 whatever the model does.
    """
    dtype = torch.promote_types(audio.dtype, torch.float32)
    audio, image = (F.normalize(vectors.to(dtype), dim=-1) for vectors in (audio, image))
    if gather:
        audio, image = of_all_processes(audio), of_all_processes(image)
    if len(audio) < 2:
        raise ParameterError(
            "batch", "a single clip", "two or more, since contrast compares clips", "Or set contrast_weight=0."
        )
    with torch.autocast(audio.device.type, enabled=False):  # bfloat16 would round s / t, which reaches 20, to 0.06
        similarity = audio @ image.T / temperature  # (clips, clips): a row for each sound, a column for each picture
    own = torch.arange(len(audio), device=audio.device)
    ways = [similarity.T, similarity] if both_directions else [similarity.T]
    losses = [F.cross_entropy(way, own) for way in ways]
    hits = [(way.argmax(dim=1) == own).to(dtype).mean() for way in ways]
    return torch.stack(losses).mean(), torch.stack(hits).mean()


def of_all_processes(rows: Tensor) -> Tensor:
    """Rows of all processes of `torch.distributed`, in order of rank, if it runs; gradients go back to theirs."""
    return _GatherRows.apply(rows) if dist.is_available() and dist.is_initialized() else rows


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, in order of rank; a row's gradient is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx, rows):
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
