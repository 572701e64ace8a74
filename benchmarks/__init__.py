"""What the plugin costs, always in one run with what it is compared to. `python -m benchmarks` runs them all."""
