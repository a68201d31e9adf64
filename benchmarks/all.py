"""Sampling, training, forward, frechet and sportballs, with the demo's network on a CPU, with the paper's on CUDA."""

from benchmarks import forward, frechet, sampling, sportballs, training
from benchmarks.command import run


def main(arguments: list[str]) -> None:
    run("all", __doc__, [module.works for module in (sampling, training, forward, frechet, sportballs)], arguments)
