"""Networks made ready to sample fast. What pays was measured; see benchmarks/RESULTS.md.

Everywhere, batch norms that no longer learn become part of the convolutions before them. On a CPU, attention over few
pixels goes by plain matrix products: torch's fused kernel is slow on the way back. On CUDA it is bfloat16, weights in
channels-last order and, for work that is long enough, compiling.
"""

from itertools import pairwise

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nrcg.errors import NrcgError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILING_PAYS = 100_000  # images × steps: compiling takes a minute or two, once for a machine and size
FEW_PIXELS = 8 * 8  # over more, the products, pixels² a head, take more memory and no less time


class SmallAttention:
    """diffusers' attention: by matrix products over at most FEW_PIXELS pixels, fused over more."""

    plain, fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,  # N×C×H×W
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        few = hidden_states[0, 0].numel() <= FEW_PIXELS
        processor = self.plain if few else self.fused
        return processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def prepare(network: nn.Module, *, precision: str = "fp32", compile: bool = False) -> nn.Module:
    """The network itself, changed in place: batch norms, weights' precision and layout, attention; compiled if asked.

    network     a U-Net or a classifier, on its device, in eval mode to sample or analyse
    precision   "fp32", or "bf16" for weights and activations; sampler state and statistics stay float32 all the same
    compile     by torch.compile, at the first call

    Raises NrcgError for another precision.
    """
    if precision not in PRECISIONS:
        raise NrcgError(f"precision {precision!r}: use {' or '.join(PRECISIONS)}")
    _fold_batch_norms(network)
    on_cuda = next(network.parameters()).device.type == "cuda"
    nn.Module.to(network, PRECISIONS[precision])  # diffusers' own `to` warns of nothing
    if on_cuda:
        nn.Module.to(network, memory_format=torch.channels_last)
    else:
        for module in network.modules():
            if isinstance(module, Attention):
                module.set_processor(SmallAttention())
    if compile:
        network.compile()
    return network


def _fold_batch_norms(network: nn.Module) -> None:
    """Let convolutions do what batch norms in eval mode do to their output; where one follows the other for certain."""
    in_order = nn.Sequential.forward  # a subclass may have another way through its layers
    for sequence in [module for module in network.modules() if getattr(type(module), "forward", None) is in_order]:
        for (place, convolution), (next_place, norm) in pairwise(list(sequence.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _is_constant(norm):
                sequence.set_submodule(place, fuse_conv_bn_eval(convolution, norm))
                sequence.set_submodule(next_place, nn.Identity())


def _is_constant(norm: nn.BatchNorm2d) -> bool:
    """Whether it does the same to every batch: neither learning nor, for want of averages, taking the batch's own."""
    return not norm.training and norm.running_var is not None


def worth_compiling(image_steps: int, device: torch.device) -> bool:
    """Whether work of so many images × steps is done sooner when the networks are compiled first.

    On a CPU never: there, guided sampling is 1.03 times as fast after two minutes of compiling.
    """
    return device.type == "cuda" and image_steps >= COMPILING_PAYS
