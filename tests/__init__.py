"""A package, lest another package of this name (torch-fidelity installs one) hides it from spawned processes."""
