"""Random draws that name their purpose and what they depend on: order, batch, shard and resumption change nothing."""

from hashlib import sha256
from operator import index

import numpy as np
import torch

from nrcg.errors import NrcgError

MT19937_WORDS = slice(24, 24 + 8 * 624)  # where a CPU generator's state holds the Mersenne Twister's words, uint64 each


def keyed_seed(purpose: str, *key: int) -> int:
    """A 63-bit seed, a function of the text `purpose` and the integers `key` alone."""
    return int.from_bytes(_digest(purpose, key)[:8], "big") >> 1


def keyed_generator(purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device` with a stream of its own for each purpose and key."""
    generator = torch.Generator(device).manual_seed(keyed_seed(purpose, *key))
    if generator.device.type == "cpu":  # by the 32 bits of its manual_seed, two of 50 000 would often be one stream
        words = np.random.SeedSequence(int.from_bytes(_digest(purpose, key), "big")).generate_state(624, np.uint32)
        state = generator.get_state()
        state[MT19937_WORDS] = torch.from_numpy(words.astype(np.uint64).view(np.uint8))
        generator.set_state(state)
    return generator


def seed_torch(purpose: str, *key: int) -> None:
    """Give torch's global generators, of the CPU and of every CUDA device, the streams of this purpose and key."""
    torch.manual_seed(keyed_seed(purpose, *key))
    torch.set_rng_state(keyed_generator(purpose, *key).get_state())


def _digest(purpose: str, key: tuple[int, ...]) -> bytes:
    if not isinstance(purpose, str) or not all(hasattr(k, "__index__") and k >= 0 for k in key):
        raise NrcgError(f"random draw {(purpose, *key)}: name its purpose, then integers, at least 0")
    return sha256(repr((purpose, *map(index, key))).encode()).digest()
