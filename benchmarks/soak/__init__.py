"""Whether a run stays what it was at its begin: 100,000 tests in a row, and runs whose workers die, for hours."""
