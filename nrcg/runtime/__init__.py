"""The machine: devices, memory, signals."""
