"""Verbs that make things with networks: trainings, samples."""

from typing import Annotated

from typer import Option

from nrcg.cli.options import (
    BatchSize,
    Checkpoint,
    Data,
    Device,
    Out,
    Scheduler,
    Seed,
    Threads,
    parse_json,
    set_up,
    train_verbs,
)
from nrcg.runtime.preemption import stop_on_signals

MAX_SAMPLES = 10**12  # more than any disk holds


@train_verbs.command("classifier")
def train_classifier(
    data: Data,
    out: Out,
    scheduler: Scheduler,
    checkpoint: Checkpoint,
    architecture: Annotated[
        str, Option(help="mobilenet_v3_small, resnet18_judge or resnet14_judge.")
    ] = "mobilenet_v3_small",
    robust: Annotated[bool, Option(help="Noise the training images along the forward process.")] = False,
    max_epochs: Annotated[int, Option(min=1)] = 20,
    batch_size: BatchSize = 128,
    learning_rate: Annotated[float, Option(help="Peak of the cosine schedule.", min=0)] = 1e-4,
    warmup_steps: Annotated[int, Option(min=0)] = 500,
    min_epochs: Annotated[int, Option(help="Never stop before this epoch.", min=0)] = 5,
    min_gain: Annotated[float, Option(help="Stop when an epoch gains less validation accuracy.")] = 0.01,
    valid_images: Annotated[int, Option(help="Validation images to use; 0 is all.", min=0)] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a classifier, robust or not; continues from its checkpoint after a signal (exit status 75) or a kill."""
    from nrcg.training.classifier import train_classifier as train
    from nrcg.training.settings import ClassifierTraining

    settings = ClassifierTraining(
        architecture=architecture,
        robust=robust,
        max_epochs=max_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        min_epochs=min_epochs,
        min_gain=min_gain,
        valid_images=valid_images,
        seed=seed,
    )
    arguments = parse_json(scheduler, "--scheduler")
    where = set_up(device, threads)
    with stop_on_signals() as stop:
        train(data, out, scheduler=arguments, settings=settings, checkpoint=checkpoint, device=where, stop=stop)


@train_verbs.command("ddpm")
def train_ddpm(
    data: Data,
    out: Out,
    unet: Annotated[str, Option(help="Arguments of diffusers' UNet2DModel: JSON, or @file.json.")],
    scheduler: Scheduler,
    checkpoint: Checkpoint,
    epochs: Annotated[int, Option(min=1)] = 1000,
    batch_size: BatchSize = 128,
    learning_rate: Annotated[float, Option(help="Peak of the cosine schedule.", min=0)] = 1e-4,
    warmup_steps: Annotated[int, Option(min=0)] = 500,
    gradient_clip: Annotated[float, Option(help="Largest norm of the gradient.", min=0)] = 1.0,
    precision: Annotated[str, Option(help="Inside the network: fp32 or bf16.")] = "bf16",
    ema_decay: Annotated[float, Option(help="Of the weights' moving average; 0 is off.", min=0, max=1)] = 0.0,
    seed: Seed = 0,
    checkpoint_every: Annotated[int, Option(help="Steps.", min=1)] = 1000,
    preview_every: Annotated[int, Option(help="Steps between grids of samples; 0 is never.", min=0)] = 0,
    compile: Annotated[bool, Option(help="Compile the network where it pays: long work on CUDA.")] = True,
    processes: Annotated[int, Option(help="To share each batch, each on a GPU of its own.", min=1)] = 1,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a DDPM; continues from its checkpoint after a signal (exit status 75) or a kill."""
    from nrcg.training.ddpm import train_ddpm as train
    from nrcg.training.launch import launch, pick_devices
    from nrcg.training.settings import DDPMTraining

    settings = DDPMTraining(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        gradient_clip=gradient_clip,
        precision=precision,
        ema_decay=ema_decay,
        seed=seed,
    )
    arguments = {
        "data": data,
        "out": out,
        "unet": parse_json(unet, "--unet"),
        "scheduler": parse_json(scheduler, "--scheduler"),
        "settings": settings,
        "checkpoint": checkpoint,
        "checkpoint_every": checkpoint_every,
        "preview_every": preview_every,
        "compile": compile,
    }
    if processes > 1:
        devices = pick_devices(device, processes)
        with stop_on_signals() as stop:
            launch(train, devices, threads=threads, stop=stop, **arguments)
        return
    where = set_up(device, threads)
    with stop_on_signals() as stop:
        train(**arguments, device=where, stop=stop)
