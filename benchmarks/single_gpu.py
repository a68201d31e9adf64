"""A run in pieces, on a GPU that can be had for some minutes at a time, perhaps on another machine each time.

A piece joins what earlier ones packed, runs Snakemake in a process group of its own, asks the group to stop when the
minutes are over (jobs then keep their checkpoints and finished batches), and packs all that the next piece needs. Run
it until it says that nothing is left. The image set is not packed: it is drawn again from its seed, its digest is
compared with that of the first time, and it gets the times of then, so that nothing made from it looks outdated.
"""

import argparse
import base64
import binascii
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from benchmarks.parts import join, pack, read_manifest
from nrcg.errors import NrcgError
from nrcg.files import read_json, save_with, sha256, write_json, write_text
from nrcg.plan import read_dry_run
from nrcg.preemption import Stop, stop_on_signals

BASE, OVERLAY = Path("config/config.yaml"), Path("config/single_gpu.yaml")
RECORDS = [PurePosixPath(".snakemake", name) for name in ("metadata", "incomplete")]  # what Snakemake knows of a file
EXPORTED = ("nonrobust", "robust", "judge")  # classifiers
LARGEST_LOG = 1 << 20  # bytes; a longer one is not packed
GRACE = 60.0  # seconds from the request to stop until what is left is killed
TRY_AGAIN = 75  # exit status of a piece that was stopped


@dataclass(frozen=True)
class Run:
    """A run of the workflow in `root`, the project's folder."""

    name: str
    root: Path
    configfiles: Sequence[Path]
    cores: int
    targets: Sequence[str]

    @property
    def home(self) -> str:
        return f"results/{self.name}"

    def snakemake(self, *options: str, targets: Sequence[str] | None = None) -> list[str]:
        """A command line; without `targets` it has the run's own."""
        words = [sys.executable, "-m", "snakemake", "--cores", str(self.cores)]
        words += ["--rerun-incomplete", *options, "--configfile", *map(str, self.configfiles)]
        return [*words, "--", *(self.targets if targets is None else targets)]

    def left(self) -> Counter[str]:
        """Jobs that a dry run lists, by rule. Raises NrcgError where Snakemake refuses, after what it says."""
        words = self.snakemake("--dry-run", "--printshellcmds")
        result = subprocess.run(words, cwd=self.root, capture_output=True, text=True)
        if result.returncode:
            raise NrcgError(f"snakemake --dry-run refuses: {(result.stderr or result.stdout).strip()}")
        return Counter(job.rule for job in read_dry_run(result.stdout, "snakemake --dry-run") if job.command)

    def done(self) -> int:
        """Jobs that have finished, in whichever piece: each leaves its benchmark."""
        return len(list((self.root / self.home / "benchmarks").rglob("*.tsv")))

    def owns(self, path: str) -> bool:
        """Whether a path below `root` is one of this run's files, or what Snakemake knows of one."""
        for folder in RECORDS:
            if PurePosixPath(path).is_relative_to(folder):
                path = _recorded(PurePosixPath(path).relative_to(folder))
        return PurePosixPath(path).is_relative_to(self.home)

    def files(self) -> Iterator[str]:
        """What the next piece needs, and small logs; no image sets, and no spare checkpoints."""
        for folder in (self.home, *map(str, RECORDS)):
            for path in (self.root / folder).rglob("*"):
                name = path.relative_to(self.root).as_posix()
                if path.is_file() and self.owns(name) and not self._dispensable(path):
                    yield name

    def _dispensable(self, path: Path) -> bool:
        inside = path.relative_to(self.root).parts[2:]  # after results/NAME
        if path.name.startswith(".") or path.suffix == ".before" or inside[1:2] == ("data",):
            return True
        return inside[0] == "logs" and path.stat().st_size > LARGEST_LOG

    def join(self, parts: Path) -> None:
        """Put what was packed in `parts` back."""
        written, newer = join(parts, self.root, self.owns)
        for folder in RECORDS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)  # one without the other is an old Snakemake's
        print(f"{parts}: {written} files joined, {newer} newer ones left as they are", flush=True)

    def image_sets(self) -> dict[str, Any]:
        """Digest and file times (ns) of the image sets that are there, by their card's path below `root`."""
        found = {}
        for card in (self.root / self.home).glob("*/data/card.json"):
            times = {path.name: path.stat().st_mtime_ns for path in card.parent.iterdir()}
            found[card.relative_to(self.root).as_posix()] = {"digest": read_json(card)["digest"], "times": times}
        return found

    def adopt(self, image_sets: dict[str, Any]) -> None:
        """Give image sets the times that were recorded; raises NrcgError for one that is not the recorded one."""
        for card, recorded in image_sets.items():
            path = self.root / card
            if not path.exists():
                continue
            if read_json(path)["digest"] != recorded["digest"]:
                raise NrcgError(
                    f"{path}: not the images that the packed files were made from (another version of Pillow, another "
                    "config?); restore what changed, or begin anew with an empty --parts"
                )
            for name, time_ns in recorded["times"].items():
                with suppress(FileNotFoundError):
                    os.utime(path.parent / name, ns=(time_ns, time_ns))


def _recorded(path: PurePosixPath) -> str:
    """The file that a record of Snakemake is about: its name is in base64, cut where it would be too long."""
    try:
        return base64.urlsafe_b64decode("".join(part.removeprefix("@") for part in path.parts)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def run_until(command: Sequence[str], root: Path, deadline: float, stop: Stop, grace: float = GRACE) -> int:
    """Exit status of a command in a process group of its own, negative if a signal ended it.

    At the `deadline` (of time.monotonic), or when `stop` says so, the whole group gets SIGTERM, as Slurm does it; what
    is left of it after `grace` seconds is killed. Ctrl-C is a request to stop, too.
    """
    with subprocess.Popen(command, cwd=root, start_new_session=True) as process:
        try:
            while process.poll() is None and time.monotonic() < deadline and not stop.reason:
                time.sleep(0.1)
        except KeyboardInterrupt:
            stop.reason = "SIGINT"
        if process.poll() is not None:
            return process.returncode
        print("asking all jobs to stop", file=sys.stderr, flush=True)
        with suppress(subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=grace)
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def piece(run: Run, parts: Path, deadline: float, stop: Stop) -> tuple[Counter[str], bool]:
    """Join, run, pack; the jobs that are left, by rule, and whether time was left, too."""
    image_sets = read_manifest(parts)["note"]
    run.join(parts)
    run.adopt(image_sets)
    left = run.left() if image_sets else None  # the first piece has all to do
    needed = [card for card in image_sets if left["sportballs"] and not (run.root / card).exists()]
    if needed:
        snakemake(run, needed, deadline, stop)
        run.adopt(image_sets)
    if left != Counter() and all((run.root / card).exists() for card in needed):
        left = Counter() if snakemake(run, run.targets, deadline, stop) == 0 else None
    in_time = time.monotonic() < deadline and not stop.reason
    new = pack(parts, run.root, run.files(), {**image_sets, **run.image_sets()})
    print(f"{parts}: {len(new)} new parts of {len(read_manifest(parts)['parts'])}", flush=True)
    return run.left() if left is None else left, in_time


def snakemake(run: Run, targets: Sequence[str], deadline: float, stop: Stop) -> int:
    """Run Snakemake while there is time; its status, TRY_AGAIN where there is none.

    Of one that could not end by itself the lock is removed, if it is its own.
    """
    if time.monotonic() >= deadline or stop.reason:
        return TRY_AGAIN
    locked = any((run.root / ".snakemake/locks").glob("*"))
    words = run.snakemake("--keep-going", "--quiet", "rules", targets=targets)
    status = run_until(words, run.root, deadline, stop)
    if status < 0 and not locked:
        subprocess.run(run.snakemake("--unlock", targets=()), cwd=run.root)
    return status


def main(arguments: list[str]) -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks single-gpu", description=__doc__)
    parser.add_argument("targets", nargs="*", help="of Snakemake; without any, everything")
    parser.add_argument("--parts", type=Path, required=True, help="folder that travels from piece to piece")
    parser.add_argument("--minutes", type=float, default=9, help="from now until jobs are asked to stop")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[OVERLAY], help="overlays of config/config.yaml")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="of Snakemake; each job takes `threads`")
    parser.add_argument("--export", type=Path, help="join, write the networks to this folder, and run nothing")
    options = parser.parse_args(arguments)
    # The rules call `nrcg`, which stands beside this Python even where the environment was not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    try:
        name = run_name([BASE, *options.configfile])
        run = Run(name, Path(), options.configfile, options.cores, options.targets)
        if options.export:
            run.join(options.parts)
            export(run.root / run.home / "sportballs", options.export)
            return
        with stop_on_signals() as stop:
            left, in_time = piece(run, options.parts, started + 60 * options.minutes, stop)
    except NrcgError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    words = ", ".join(f"{count} {rule}" for rule, count in left.items()) or "nothing"
    if left["sportballs"]:
        words += " (the images are not drawn yet here, so all that is made from them counts)"
    again = f"; go on with: python -m benchmarks single-gpu {shlex.join(arguments)}" if left else ""
    print(f"done: {run.done()} jobs; left: {words}{again}")
    sys.exit(0 if not left else 1 if in_time else TRY_AGAIN)


def run_name(configfiles: Sequence[Path]) -> str:
    """The key `run` of the last config that has it."""
    name = ""
    for path in configfiles:
        try:
            name = yaml.safe_load(path.read_text()).get("run", name)
        except (OSError, yaml.YAMLError, AttributeError) as error:
            raise NrcgError(f"{path}: cannot be read as a config ({str(error).splitlines()[0]})") from None
    return name


def export(home: Path, folder: Path) -> None:
    """Write the networks of a data set's folder with their cards and logs, as small as they may ship.

    `folder` becomes a diffusers folder of the DDPM, with `classifiers/NAME` in it. Matrices and filters are rounded to
    float16; vectors, such as the statistics of batch norms, stay float32, and so do all weights once loaded. Raises
    NrcgError where a network is not trained yet.
    """
    ddpm = home / "ddpm"
    networks = {ddpm / "unet/diffusion_pytorch_model.safetensors": ddpm}
    networks |= {home / "classifiers" / name / "model.safetensors": home / "classifiers" / name for name in EXPORTED}
    for weights, source in networks.items():
        for path in (weights, source / "card.json", source / "log.csv"):
            if not path.exists():
                raise NrcgError(f"{path}: no such file; not trained yet, so run another piece first")
    for weights, source in networks.items():
        place = folder / source.relative_to(ddpm if source == ddpm else home)
        rounded = f"float16, rounded from the weights with SHA-256 {sha256(weights)}"
        _halve(weights, place / weights.relative_to(source))
        write_json(place / "card.json", {**read_json(source / "card.json"), "weights": rounded})
        write_text(place / "log.csv", (source / "log.csv").read_text())
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        write_text(folder / name, (ddpm / name).read_text())


def _halve(weights: Path, place: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    halved = {name: tensor.to(torch.float16) if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    save_with(place, lambda path: save_file(halved, path, metadata={"format": "pt"}))
