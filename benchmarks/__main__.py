"""`python -m benchmarks NAME …`: run a benchmark and print its table; `python -m benchmarks --help` lists them."""

import argparse
import importlib

BENCHMARKS = {
    "all": "sampling, training, forward, frechet and sportballs (at most ten minutes)",
    "sampling": "guided and unguided sampling against plain loops on diffusers",
    "training": "DDPM training against diffusers' example",
    "forward": "forward analysis against evaluating both neighbours at each t",
    "frechet": "feature statistics and Fréchet distance against pytorch-fid",
    "sportballs": "drawing 100 000 SportBalls",
    "cheaper": "guidance that costs less, on a finished demo: its time and quality (docs/cheaper.md)",
    "score-memory": "peak memory of scoring 1 000 to 50 176 samples",
    "slurm-shards": "time around 200 short samplings on Slurm, one a job and several a job",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", formatter_class=argparse.RawTextHelpFormatter)
    lines = "\n".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    parser.add_argument("name", choices=BENCHMARKS, help=lines)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="NAME --help lists them")
    chosen = parser.parse_args()
    importlib.import_module(f"benchmarks.{chosen.name.replace('-', '_')}").main(chosen.options)


if __name__ == "__main__":
    main()
