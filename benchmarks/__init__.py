"""Speed and memory against the plain way: `python -m benchmarks NAME`."""
