"""Copied next to an inner suite: writes down, one a line, the reports that reach the run's controller."""

import json
from pathlib import Path

import pytest


class Witness:
    def __init__(self, path):
        self.path = path

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        sections = [text for name, text in report.sections if name == "gpuclean"]
        seen = {
            "test": report.nodeid,
            "when": report.when,
            "outcome": str(report.outcome),
            "expected": hasattr(report, "wasxfail"),
            "kind": type(report).__name__,
            "text": "\n".join([str(report.longrepr or ""), *sections]),
            "worker": getattr(report, "worker_id", ""),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(seen) + "\n")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Witness(Path("witness.jsonl").absolute()), "witness-of-reports")
