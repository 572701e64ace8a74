"""The processes that a test left: found, proved to be the run's own, stopped. Nobody else's is touched."""
