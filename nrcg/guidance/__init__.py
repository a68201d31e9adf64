"""Classifier guidance of a DDPM: the paper's contribution, for any diffusers U-Net and any image classifier."""

from nrcg.guidance.guidance import ClassifierGuidance
from nrcg.guidance.pipeline import GuidedDDPMPipeline
from nrcg.guidance.stabilizers import EMA, Adam

__all__ = ["EMA", "Adam", "ClassifierGuidance", "GuidedDDPMPipeline"]
