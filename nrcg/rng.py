"""Random draws seeded by purpose and key: independent of order, batch, shard and resumption."""

from hashlib import sha256
from operator import index

import numpy as np
import torch

from nrcg.errors import NrcgError

MT19937_WORDS = slice(24, 24 + 8 * 624)  # the Mersenne Twister's words, uint64 each, in a CPU generator's state


def keyed_seed(purpose: str, *key: int) -> int:
    """A 63-bit seed that depends only on the text `purpose` and the integers `key`."""
    return int.from_bytes(_digest(purpose, key)[:8], "big") >> 1


def keyed_generator(purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device` with a separate stream per purpose and key."""
    generator = torch.Generator(device).manual_seed(keyed_seed(purpose, *key))
    if generator.device.type == "cpu":  # its manual_seed uses 32 bits: among 50 000 streams two would often be equal
        words = np.random.SeedSequence(int.from_bytes(_digest(purpose, key), "big")).generate_state(624, np.uint32)
        state = generator.get_state()
        state[MT19937_WORDS] = torch.from_numpy(words.astype(np.uint64).view(np.uint8))
        generator.set_state(state)
    return generator


def seed_torch(purpose: str, *key: int) -> None:
    """Set torch's global generators (CPU and every CUDA device) to the streams of this purpose and key."""
    torch.manual_seed(keyed_seed(purpose, *key))
    torch.set_rng_state(keyed_generator(purpose, *key).get_state())


def _digest(purpose: str, key: tuple[int, ...]) -> bytes:
    if not isinstance(purpose, str) or not all(hasattr(k, "__index__") and k >= 0 for k in key):
        raise NrcgError(f"random draw {(purpose, *key)}: give a purpose, then integers of at least 0")
    return sha256(repr((purpose, *map(index, key))).encode()).digest()
