"""Networks made ready to sample fast. What pays was measured; see benchmarks/RESULTS.md.

Everywhere, batch norms that no longer learn become part of the convolutions before them. On a CPU, attention over few
pixels goes by plain matrix products: torch's fused kernel is slow on the way back. On CUDA it is bfloat16, weights in
channels-last order and, for work that is long enough, compiling.

Layers and their order in memory are changed in networks alone whose whole code is known, since any other `forward` may
use what comes out of a single layer, or the way it lies in memory.
"""

from itertools import chain, pairwise

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.mobilenetv3 import InvertedResidual, MobileNetV3
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

from nrcg.errors import NrcgError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILING_PAYS = 100_000  # images × steps: compiling takes a minute or two, once for a machine and size
ORDERLY = (MobileNetV3, InvertedResidual, Conv2dNormActivation, SqueezeExcitation, ResNet, BasicBlock)  # call in order
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
FEW_PIXELS = 8 * 8  # over more, the products, pixels² a head, take more memory and no less time


class SmallAttention:
    """diffusers' attention: by matrix products over at most FEW_PIXELS pixels, fused over more."""

    plain, fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,  # N×C×H×W, or N×pixels×C
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        pixels = hidden_states.shape[2:].numel() if hidden_states.ndim == 4 else hidden_states.shape[1]
        processor = self.plain if pixels <= FEW_PIXELS else self.fused
        return processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def prepare(network: nn.Module, *, precision: str = "fp32", compile: bool = False) -> nn.Module:
    """The network itself, changed in place: batch norms, weights' precision and layout, attention; compiled if asked.

    In float32 its output stays the same up to rounding. Batch norms are folded in networks of torch.nn's layers and
    torchvision's MobileNetV3 and ResNet alone, without hooks; attention of diffusers keeps a processor that is not the
    default.

    network     a U-Net or a classifier, on its device, in eval mode to sample or analyse
    precision   "fp32", or "bf16" for weights and activations; sampler state and statistics stay float32 all the same
    compile     by torch.compile, at the first call

    Raises NrcgError for another precision.
    """
    if precision not in PRECISIONS:
        raise NrcgError(f"precision {precision!r}: use {' or '.join(PRECISIONS)}")
    known = _is_known(network)
    if known:
        _fold_batch_norms(network)
    on_cuda = any(tensor.is_cuda for tensor in chain(network.parameters(), network.buffers()))
    nn.Module.to(network, PRECISIONS[precision])  # diffusers' own `to` warns of nothing
    if on_cuda and (known or type(network) is UNet2DModel):
        nn.Module.to(network, memory_format=torch.channels_last)
    if not on_cuda:
        for module in network.modules():
            if isinstance(module, Attention) and _is_plain_attention(module):
                module.set_processor(SmallAttention())
    if compile and not isinstance(network, torch.jit.ScriptModule):
        network.compile()
    return network


def _is_known(network: nn.Module) -> bool:
    """Whether each module's code is torch's or torchvision's own, and calls its layers in order: no one else sees them.

    A subclass may do anything; so may a hook, or a `forward` of the object's own. Parametrised layers (weight norm,
    spectral norm) are of a subclass or have a hook.
    """
    return all(
        (type(module) in ORDERLY or type(module).__module__.startswith("torch.nn.modules."))
        and not any(getattr(module, hooks) for hooks in HOOKS)
        and "forward" not in vars(module)
        for module in network.modules()
    )


def _fold_batch_norms(network: nn.Module) -> None:
    """Let convolutions do what batch norms in eval mode do to their output, where one follows the other in sequence."""
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (place, convolution), (next_place, norm) in pairwise(list(sequence.named_children())):
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and _is_constant(convolution, norm):
                sequence.set_submodule(place, fuse_conv_bn_eval(convolution, norm))
                sequence.set_submodule(next_place, nn.Identity())


def _is_constant(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether the norm does the same to every batch: not learning nor, for want of averages, taking the batch's own.

    Weights in half precision do not count: folding would round them once more.
    """
    precise = convolution.weight.dtype in (torch.float32, torch.float64)
    return precise and not (norm.training or convolution.training) and norm.running_var is not None


def _is_plain_attention(attention: Attention) -> bool:
    """Whether it is what `SmallAttention` computes: softmax(Q Kᵀ / √d) V by diffusers' default processor."""
    plain = type(attention.processor) is AttnProcessor2_0
    return plain and attention.scale_qk and attention.norm_q is None and attention.norm_k is None


def worth_compiling(image_steps: int, device: torch.device) -> bool:
    """Whether work of so many images × steps is done sooner when the networks are compiled first.

    On a CPU never: there, guided sampling is 1.03 times as fast after two minutes of compiling.
    """
    return device.type == "cuda" and image_steps >= COMPILING_PAYS
