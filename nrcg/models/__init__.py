"""Classifiers and DDPMs: build, load, save."""
