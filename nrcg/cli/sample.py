"""The verb that draws samples."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nrcg.cli import options
from nrcg.cli.networks import guide_of, open_samplers, tuned
from nrcg.cli.slots import WithSlots
from nrcg.errors import NrcgError
from nrcg.runtime.preemption import stop_on_signals

MAX_SAMPLES = 10**12  # more than any disk holds
GUIDANCE = 'Arguments of ClassifierGuidance, JSON or @file.json: {"on": "x0", "stabilizer": {"ema": {"beta": 0.99}}}.'
SCHEDULER = (
    'Scheduler of diffusers, JSON: "DDIMScheduler", {"DDIMScheduler": {"eta": 1}}, '
    '{"DDPMScheduler": {"timesteps": [99, 50, 0]}}; null: the DDPM\'s.'
)


@options.app.command(cls=WithSlots)
def sample(
    ddpm: options.Ddpm,
    out: Annotated[Path, Option("--out", help="Output shard NAME.npy, with its card NAME.json beside it.")],
    start: Annotated[int, Option(help="First sample of the shard.", min=0, max=MAX_SAMPLES)],
    stop: Annotated[int, Option(help="Last sample plus one.", min=1, max=MAX_SAMPLES)],
    num_inference_steps: Annotated[int, Option(help="Reverse steps.", min=1)],
    classifier: Annotated[Path | None, Option(help="Guiding classifier's folder; default: unguided.")] = None,
    target: options.Target = "0",
    scale: Annotated[str | None, Option(help="Guidance scale s of eq. 1, or auto; needs --classifier.")] = None,
    judge: Annotated[Path | None, Option(help="For --scale auto: as in `measure scale`.")] = None,
    reference: Annotated[Path | None, Option(help="For --scale auto: as in `measure scale`.")] = None,
    extractor: Annotated[str, Option(help="For --scale auto: as in `measure scale`.")] = "classifier",
    weights: Annotated[Path | None, Option(help="For --scale auto: as in `measure scale`.")] = None,
    guidance: Annotated[str, Option(help=GUIDANCE)] = "{}",
    scheduler: Annotated[str, Option(help=SCHEDULER)] = "null",
    class_label: options.ClassLabel = None,
    precision: options.Precision = "fp32",
    compile: Annotated[bool, Option(help="Compile the networks for long runs on CUDA.")] = True,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Draw a shard of samples, guided or not; the random draws of sample i depend only on (seed, i).

    After a signal (exit status 75) or a kill, the same command resumes from the finished batches.
    """
    if out.suffix != ".npy":
        raise NrcgError(f"--out {out}: not a NumPy file name; use {out.parent / out.stem}.npy")
    where = options.set_up(device, threads)
    from nrcg.sampling import sample_shard
    from nrcg.speed import worth_compiling

    pays = worth_compiling((stop - start) * num_inference_steps, where)
    stated = None if scale is None else 1.0 if scale == "auto" else options.parse_number(scale, "--scale")
    guides = [guide_of(classifier, stated, guidance)]
    (opened,) = open_samplers(ddpm, scheduler, guides, target, class_label, precision, where, compile and pays)
    if scale == "auto":
        if judge is None or reference is None:
            raise NrcgError("--scale auto: needs --judge and --reference, as in `nrcg measure scale`")
        search = judge, extractor, weights, reference, out.with_suffix(".scales.csv")
        opened = tuned(opened, *search, num_inference_steps, batch_size, seed)
    run = opened._asdict()
    run |= {"num_inference_steps": num_inference_steps, "batch_size": batch_size, "seed": seed}
    with stop_on_signals() as asked:
        sample_shard(out, range(start, stop), stop=asked, **run)
