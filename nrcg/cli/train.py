"""Verbs that train networks."""

from typing import Annotated, Any

from typer import Option

from nrcg.cli.options import Checkpoint, Data, Device, Out, Scheduler, Threads, parse_json, set_up, train_verbs
from nrcg.registry import call
from nrcg.runtime.preemption import stop_on_signals

Settings = Annotated[str, Option("--settings", help="Training settings, as in the config: JSON, or @file.json.")]


@train_verbs.command("classifier")
def train_classifier(
    data: Data,
    out: Out,
    scheduler: Scheduler,
    settings: Settings,
    checkpoint: Checkpoint,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a classifier, robust or not; resumes from its checkpoint after a signal (exit status 75) or a kill."""
    from nrcg.training.classifier import train_classifier as train
    from nrcg.training.settings import ClassifierTraining

    arguments: dict[str, Any] = {"checkpoint": checkpoint, "scheduler": parse_json(scheduler, "--scheduler")}
    arguments["settings"] = call(ClassifierTraining, "--settings", parse_json(settings, "--settings"))
    where = set_up(device, threads)
    with stop_on_signals() as stop:
        train(data, out, **arguments, device=where, stop=stop)


@train_verbs.command("ddpm")
def train_ddpm(
    data: Data,
    out: Out,
    unet: Annotated[str, Option(help="Arguments of diffusers' UNet2DModel: JSON, or @file.json.")],
    scheduler: Scheduler,
    settings: Settings,
    checkpoint: Checkpoint,
    checkpoint_every: Annotated[int, Option(help="Steps between checkpoints.", min=1)] = 1000,
    preview_every: Annotated[int, Option(help="Steps between grids of samples; 0 means never.", min=0)] = 0,
    compile: Annotated[bool, Option(help="Compile the network for long runs on CUDA.")] = True,
    processes: Annotated[int, Option(help="Processes that share each batch, one GPU each.", min=1)] = 1,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a DDPM; resumes from its checkpoint after a signal (exit status 75) or a kill."""
    from nrcg.runtime.device import pick_devices
    from nrcg.training.ddpm import train_ddpm as train
    from nrcg.training.distributed import launch
    from nrcg.training.settings import DDPMTraining

    arguments: dict[str, Any] = {"data": data, "out": out, "checkpoint": checkpoint, "compile": compile}
    arguments |= {"checkpoint_every": checkpoint_every, "preview_every": preview_every}
    arguments |= {"unet": parse_json(unet, "--unet"), "scheduler": parse_json(scheduler, "--scheduler")}
    arguments["settings"] = call(DDPMTraining, "--settings", parse_json(settings, "--settings"))
    if processes > 1:
        return launch(train, pick_devices(device, processes), threads=threads, **arguments)
    where = set_up(device, threads)
    with stop_on_signals() as stop:
        train(**arguments, device=where, stop=stop)
