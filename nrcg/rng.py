"""Random draws that name what they depend on, so that order, batch, shard and resumption change nothing."""

import numpy as np
import torch


def keyed_seed(*key: int) -> int:
    """A 63-bit seed that is a function of the integers `key` alone; nearby keys give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def keyed_generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device` whose stream is a function of the integers `key` alone."""
    return torch.Generator(device).manual_seed(keyed_seed(*key))
