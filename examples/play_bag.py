"""Stands in for `ros2 bag play`: it goes on for a minute, whoever has started it."""

import time

time.sleep(60)
