"""Classifier guidance of a diffusion model, for any diffusers U-Net and any image classifier."""

# fmt: off
from nrcg.guidance.apply import Compress, Inner, Recur, applications
from nrcg.guidance.copies import Augment, Noise, copies
from nrcg.guidance.guidance import ClassifierGuidance, Guidance, ValueGuidance, guidance_from, stabilizer_from
from nrcg.guidance.objectives import ClassValue, WeightedSum, objectives
from nrcg.guidance.sizes import schedules, step_sizes
from nrcg.guidance.stabilizers import (
    EMA,
    AdaBelief,
    Adam,
    Chain,
    Clip,
    Lion,
    Momentum,
    Nesterov,
    RMSProp,
    Sign,
    Stabilizer,
    Unit,
    stabilizers,
)
from nrcg.methods import methods

SLOTS = {  # the registries of names for a config
    "method": methods, "objective": objectives, "copies": copies, "stabilizer": stabilizers, "step_size": step_sizes,
    "schedule": schedules, "apply": applications,
}
__all__ = [
    "EMA", "SLOTS", "AdaBelief", "Adam", "Augment", "Chain", "ClassValue", "ClassifierGuidance", "Clip", "Compress",
    "Guidance", "Inner", "Lion", "Momentum", "Nesterov", "Noise", "RMSProp", "Recur", "Sign", "Stabilizer", "Unit",
    "ValueGuidance", "WeightedSum", "applications", "copies", "guidance_from", "methods", "objectives", "schedules",
    "stabilizer_from", "stabilizers", "step_sizes",
]
