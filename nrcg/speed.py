"""Faster networks for sampling. For the measurements see benchmarks/RESULTS.md."""

import logging
from collections.abc import Callable
from functools import cache
from itertools import chain, pairwise
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.mobilenetv3 import InvertedResidual, MobileNetV3
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

from nrcg.errors import NrcgError, first_line
from nrcg.models.adapter import Adapter

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")  # without them torch computes in float32 and converts
COMPILING_PAYS = 1_500_000  # images × steps: on an H100 compiling took 100 s and saved 62 µs per image and step
ORDERLY = (  # modules that call their layers in order
    *(Adapter, MobileNetV3, InvertedResidual, Conv2dNormActivation, SqueezeExcitation, ResNet, BasicBlock),
)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
FEW_PIXELS = 8 * 8  # above this, the products (pixels² per head) need more memory and save no time

log = logging.getLogger("nrcg")


class SmallAttention:
    """diffusers' attention, with plain matrix products for few pixels, where the fused kernel's backward is slow."""

    plain, fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *, temb: Any = None, **others: Any) -> Any:
        """Hidden states are N×C×H×W or N×pixels×C; diffusers looks for `temb` in the signature."""
        pixels = hidden_states.shape[2:].numel() if hidden_states.ndim == 4 else hidden_states.shape[1]
        processor = self.plain if pixels <= FEW_PIXELS else self.fused
        return processor(attn, hidden_states, temb=temb, **others)


def prepare(network: nn.Module, *, precision: str = "fp32", compile: bool = False) -> nn.Module:
    """Change a network in place and return it: fold batch norms, set precision, memory layout and attention, compile.

    In float32 the output stays the same up to rounding. Batch norms of networks with hooks or unknown code are kept.

    Args:
        network: a U-Net or classifier on its device; in eval mode unless it is to be trained.
        precision: "fp32", or "bf16" for weights and activations; sampler state and statistics stay float32.
        compile: use torch.compile, which compiles at the first call; where no compiler works, a warning in one line
            says so, and the network runs as it is. torch keeps compiled code on disk, in `TORCHINDUCTOR_CACHE_DIR`,
            by default /tmp/torchinductor_USER.

    Raises:
        NrcgError: for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise NrcgError(f"precision {precision!r}: use {' or '.join(PRECISIONS)}")
    known = _is_known(network)
    if known:
        _fold_batch_norms(network)
    on_cuda = any(tensor.is_cuda for tensor in chain(network.parameters(), network.buffers()))
    nn.Module.to(network, PRECISIONS[precision])  # diffusers' own `to` prints a needless warning
    if on_cuda and (compile or network.training) and (known or type(network) is UNet2DModel):
        nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]  # slower otherwise
    for module in () if on_cuda else network.modules():
        usual = isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0
        if usual and module.scale_qk and module.norm_q is None and module.norm_k is None:  # softmax(Q Kᵀ / √d) V
            module.set_processor(SmallAttention())
    if compile and not isinstance(network, torch.jit.ScriptModule):
        network.compile(backend=inductor)
    return network


def inductor(graph: Any, inputs: Any) -> Callable[..., Any]:
    """torch.compile's default backend; where it fails, the graph runs as it is."""
    try:
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)
    except Exception as error:  # any error of a compiler
        _warn(first_line(error))
        return graph.forward


@cache  # once for all parts of a network
def _warn(reason: str) -> None:
    log.warning("torch.compile fails (%s); continuing without it", reason)


def _is_known(network: nn.Module) -> bool:
    """Whether all modules are of torch or torchvision, have no hooks and call their layers in order."""
    return all(
        (type(module) in ORDERLY or type(module).__module__.startswith("torch.nn.modules."))
        and not any(getattr(module, hooks) for hooks in HOOKS)
        and "forward" not in vars(module)
        for module in network.modules()
    )


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold batch norms in eval mode into the convolutions directly before them in a sequence."""
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (place, convolution), (next_place, norm) in pairwise(list(sequence.named_children())):
            if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_var is None:
                continue
            precise = convolution.weight.dtype in (torch.float32, torch.float64)  # else folding would round again
            if precise and not (norm.training or convolution.training):
                sequence.set_submodule(place, fuse_conv_bn_eval(convolution, norm))
                sequence.set_submodule(next_place, nn.Identity())


def native_precision(device: torch.device) -> str:
    """The fastest precision for networks on a device: "bf16" with hardware support for bfloat16, else "fp32"."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if any(able.get(name) for name in BF16_INSTRUCTIONS) else "fp32"


def worth_compiling(image_steps: int, device: torch.device) -> bool:
    """Whether compiling pays for this many images × steps; never on a CPU."""
    return device.type == "cuda" and image_steps >= COMPILING_PAYS
