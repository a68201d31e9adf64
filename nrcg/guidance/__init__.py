"""Classifier guidance of a DDPM: the paper's contribution, for any diffusers U-Net and any image classifier."""

from nrcg.guidance.guidance import ClassifierGuidance, ValueGuidance, guidance_from, stabilizer_from
from nrcg.guidance.objectives import ClassValue, WeightedSum, objectives
from nrcg.guidance.pipeline import GuidedDDPMPipeline
from nrcg.guidance.stabilizers import EMA, Adam, Stabilizer, stabilizers

__all__ = [
    "EMA", "Adam", "ClassValue", "ClassifierGuidance", "GuidedDDPMPipeline", "Stabilizer", "ValueGuidance",
    "WeightedSum", "guidance_from", "objectives", "stabilizer_from", "stabilizers",
]  # fmt: skip
