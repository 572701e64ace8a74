"""What is checked of the built package."""
