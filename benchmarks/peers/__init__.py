"""Runs the test suites of well-known libraries without and with the plugin, and compares them outcome by outcome."""
