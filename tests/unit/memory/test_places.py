"""The user's code is told from that of packages, and a place in it is named in a few words."""

import json
import os
import sys
import threading

import pytest

from pytest_gpuclean.memory.places import Place, Places, caller_places, places_of

ROOT = os.sep + os.path.join("home", "me", "project")
SITE = os.sep + os.path.join("venv", "lib", "python3.11", "site-packages")


def in_project(*names):
    return os.path.join(ROOT, *names)


def in_package(*names):
    return os.path.join(SITE, *names)


@pytest.fixture
def places():
    return Places(ROOT)


@pytest.mark.parametrize(
    ("filename", "owner"),
    [
        (in_project("test_model.py"), "user"),
        (in_project("src", "model.py"), "user"),
        (in_project(".venv", "lib", "python3.11", "site-packages", "torch", "nn.py"), "package"),
        (in_package("torch", "nn.py"), "package"),
        (in_package("six.py"), "package"),
        (in_package("_pytest", "python.py"), "runner"),
        (in_package("pluggy", "_callers.py"), "runner"),
        (in_package("pytest_mock", "plugin.py"), "package"),
        (json.__file__, "python"),
        (os.path.join(os.path.dirname(os.__file__), "unittest", "case.py"), "runner"),
        ("<frozen importlib._bootstrap>", "python"),
        ("<eval_with_key>.1", "python"),
        ("<string>", "user"),
        ("<stdin>", "user"),
        (os.path.abspath(__file__), "user"),
    ],
)
def test_code_is_told_apart_by_its_file(places, filename, owner):
    assert places.owner(filename) == owner


def test_our_own_code_is_that_of_the_runner(places):
    from pytest_gpuclean.memory import recorder

    assert places.owner(recorder.__file__) == "runner"


TEST = Place(in_project("tests", "test_model.py"), 12, "test_train")
HELPER = Place(in_project("helpers.py"), 40, "make")
TORCH = Place(in_package("torch", "nn.py"), 7, "forward")
PYTEST = Place(in_package("_pytest", "python.py"), 166, "pytest_pyfunc_call")
SCRIPT = Place(in_project("run_all.py"), 3, "<module>")


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        ([TEST, PYTEST], "tests/test_model.py:12 in test_train"),
        ([TORCH, TEST, PYTEST], "tests/test_model.py:12 in test_train"),
        ([TORCH, HELPER, TORCH, TEST, PYTEST], "helpers.py:40 in make, from tests/test_model.py:12 in test_train"),
        ([TEST, PYTEST, SCRIPT], "tests/test_model.py:12 in test_train"),
        ([TEST._replace(line=14), TEST, PYTEST], "tests/test_model.py:14 in test_train"),
        ([PYTEST, TORCH, HELPER, PYTEST], "helpers.py:40 in make"),
        ([TORCH, PYTEST], ""),
        ([], ""),
    ],
)
def test_a_site_is_the_innermost_place_of_the_users_and_where_the_test_called_it(places, stack, said):
    assert places.site(stack).replace(os.sep, "/") == said


def test_files_elsewhere_are_named_without_their_folder(places):
    assert places.name(Place("/somewhere/else/model.py", 3, "f")) == "model.py:3 in f"


def test_what_a_terminal_would_obey_and_what_is_too_long_is_not_printed(places):
    name = places.name(Place(in_project("a\x1b[31m.py"), 3, "f" * 500))
    assert name.startswith(r"a\x1b[31m.py:3 in fff")
    assert len(name) < 150


def test_a_place_without_its_function_is_looked_up_in_the_source(tmp_path):
    file = tmp_path / "code.py"
    file.write_text("X = 1\n\ndef outer():\n    def inner():\n        return X\n    return inner\n", encoding="utf-8")
    places = Places(str(tmp_path))
    names = [places.name(Place(str(file), line, "")) for line in (1, 5, 6)]
    assert names == ["code.py:1", "code.py:5 in inner", "code.py:6 in outer"]


@pytest.mark.parametrize("text", ["def broken(:\n", "\0", "# coding: nonsense\n"])
def test_a_source_that_cannot_be_read_costs_no_more_than_the_name_of_the_function(tmp_path, text):
    file = tmp_path / "code.py"
    file.write_text(text, encoding="utf-8")
    assert Places(str(tmp_path)).name(Place(str(file), 1, "")) == "code.py:1"
    assert Places(str(tmp_path)).name(Place(str(tmp_path / "none.py"), 1, "")) == "none.py:1"


def test_where_a_thread_stands_is_told_by_the_users_code_if_it_runs_any(places):
    python = Place(json.__file__, 1, "loads")
    assert places.standing([python, TORCH, HELPER]) == HELPER
    assert places.standing([python, TORCH]) == TORCH
    assert places.standing([python]) == python
    assert places.standing([]) is None
    assert places.call(HELPER) == "make() at helpers.py:40"


def test_the_places_of_a_frame_are_its_own_and_its_callers():
    def inner():
        return next(iter(caller_places())), [place.function for place in places_of(sys._getframe(0))]

    place, functions = inner()
    assert (place.function, place.filename) == ("inner", __file__)
    assert functions[:2] == ["inner", "test_the_places_of_a_frame_are_its_own_and_its_callers"]


def test_the_place_where_another_thread_stands_can_be_named():
    ready, end = threading.Event(), threading.Event()

    def wait_for_the_end():
        ready.set()
        end.wait()

    thread = threading.Thread(target=wait_for_the_end)
    thread.start()
    ready.wait()
    try:
        standing = Places().standing(places_of(sys._current_frames()[thread.ident]))
    finally:
        end.set()
        thread.join()
    assert standing.function == "wait_for_the_end"
