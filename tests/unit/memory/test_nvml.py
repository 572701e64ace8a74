"""The driver's view: every error is a sentence, what is unknown is never 0, and a driver that hangs costs little."""

import os
import threading
import time
from types import SimpleNamespace

import pytest

from pytest_gpuclean.memory.cards import CardUser
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.memory.nvml_calls import NvmlCalls
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import GiB, MiB
from unit.fakepynvml import CALLS, CODES, FakePynvml, Part, nvml_of

OWN_CALLS = ("nvmlInit", "nvmlDeviceGetCount")
"""Without these nothing is known; any other costs its own figure, or its own card."""


def two_cards():
    """A card with users, and one that is cut in two."""
    users = {"Compute": [(4711, 512 * MiB), (4712, None)], "Graphics": [(4711, 512 * MiB), (900, 30 * MiB)]}
    slots = {0: Part("MIG-a", total=10 * GiB), 2: Part("MIG-b", total=20 * GiB, users={"Compute": [(5000, 7 * MiB)]})}
    return FakePynvml(
        Part("GPU-a", used=2 * GiB, users=users),
        Part("GPU-b", used=3 * GiB, mig=1, slots=slots),
    )


def sizes(users):
    return {(user.pid, user.used_bytes) for user in users}


def test_every_card_is_read_and_its_instances_follow_it():
    cards = nvml_of(two_cards()).devices()
    assert [card.uuid for card in cards] == ["GPU-a", "GPU-b", "MIG-a", "MIG-b"]
    first, second, *instances = cards
    assert (first.index, first.total_bytes, first.used_bytes, first.free_bytes) == (0, 80 * GiB, 2 * GiB, 78 * GiB)
    assert (first.is_mig, first.is_partitioned, second.is_partitioned) == (False, False, True)
    assert [(card.index, card.slot, card.parent_uuid, card.total_bytes) for card in instances] == [
        (1, 0, "GPU-b", 10 * GiB),
        (1, 2, "GPU-b", 20 * GiB),
    ]
    assert not any(card.trouble for card in cards)


def test_a_process_is_one_user_whatever_lists_it_is_in():
    nvml = nvml_of(two_cards())
    users = nvml.users(nvml.devices()[0])
    assert users == (
        CardUser(pid=4711, used_bytes=512 * MiB, kind="compute+graphics"),
        CardUser(pid=4712, used_bytes=None, kind="compute"),
        CardUser(pid=900, used_bytes=30 * MiB, kind="graphics"),
    )


def test_the_users_of_an_instance_are_its_own():
    nvml = nvml_of(two_cards())
    assert nvml.users(nvml.devices()[3]) == (CardUser(pid=5000, used_bytes=7 * MiB),)


def test_memory_on_several_instances_adds_up_and_a_client_of_a_shared_server_counts_once():
    users = {"Compute": [(1, 4 * MiB), (1, 8 * MiB), (2, None), (2, MiB), (3, MiB)], "MPSCompute": [(3, MiB)]}
    nvml = nvml_of(FakePynvml(Part("GPU-a", users=users)))
    assert {user.pid: user.used_bytes for user in nvml.users(nvml.devices()[0])} == {1: 12 * MiB, 2: None, 3: MiB}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", CALLS)
def test_every_error_at_every_call_is_told_by_name_and_costs_no_more_than_its_figure(call, code):
    module = two_cards()
    nvml = nvml_of(module)
    before = nvml.use()
    module.errors[call] = code
    if call == "nvmlInit":
        nvml = nvml_of(module)
    use = nvml.use()
    cards = nvml.devices()
    if call in OWN_CALLS:
        assert isinstance(cards, Unavailable)
        assert isinstance(use, Unavailable)
        assert call in cards.reason or (code == 12 and "no NVIDIA driver" in cards.reason)
    else:
        reasons = [reason for card in cards for reason in card.trouble]
        reasons += [found.users.reason for found in use if isinstance(found.users, Unavailable)]
        expected = f"{call} failed"
        assert all(reason.startswith(expected) for reason in reasons)
        assert [card.index for card in cards][:2] == [0, 1] or call.startswith("nvmlDeviceGetM")
        # What is known stays what it was: nothing turns into 0.
        for found in use:
            for known in (old for old in before if found.card.uuid and old.card.uuid == found.card.uuid):
                assert found.card.total_bytes in (None, known.card.total_bytes)
                assert found.card.used_bytes in (None, known.card.used_bytes)
                assert isinstance(found.users, Unavailable) or sizes(found.users) <= sizes(known.users)
    module.errors.clear()
    if call != "nvmlInit":
        assert nvml.use() == before  # an error in the middle of a run is no end of it


@pytest.mark.parametrize("call", [call for call in CALLS if call not in OWN_CALLS])
def test_an_error_that_matters_is_not_passed_over(call):
    module = two_cards()
    nvml = nvml_of(module)
    before = nvml.use()
    module.errors[call] = 999
    assert nvml.use() != before


@pytest.mark.parametrize("code", [3, 13])
def test_a_driver_without_a_list_of_graphics_has_none_and_one_without_any_list_does_not_tell(code):
    module = two_cards()
    module.missing.add("nvmlDeviceGetComputeRunningProcesses_v2")
    nvml = nvml_of(module)
    card = nvml.devices()[0]
    module.errors["nvmlDeviceGetGraphicsRunningProcesses"] = code
    assert [user.pid for user in nvml.users(card)] == [4711, 4712]
    module.errors["nvmlDeviceGetComputeRunningProcesses"] = code
    assert isinstance(nvml.users(card), Unavailable)


def test_a_card_that_fails_does_not_hide_the_others():
    class Broken(Part):
        @property
        def used(self):
            raise RuntimeError("the card is on fire")

        @used.setter
        def used(self, value):
            pass

    first, second = nvml_of(FakePynvml(Broken("GPU-a"), Part("GPU-b", used=5))).devices()
    assert (first.uuid, first.used_bytes, second.used_bytes) == ("GPU-a", None, 5)
    assert "the card is on fire" in first.trouble[0]


def test_a_card_that_one_may_not_use_is_told_and_barred():
    module = two_cards()
    module.errors["nvmlDeviceGetHandleByIndex"] = 4
    first = nvml_of(module).devices()[0]
    assert first.is_barred
    assert first.total_bytes is None
    assert first.trouble == ("nvmlDeviceGetHandleByIndex failed: Insufficient Permissions (NVML error 4)",)


@pytest.mark.parametrize("figure", [SimpleNamespace(), "many", 1.5, True], ids=repr)
def test_a_figure_that_is_no_number_is_no_figure(figure):
    (card,) = nvml_of(FakePynvml(Part("GPU-a", total=80, used=0, users={"Compute": [(1, figure)]}))).devices()
    assert card.total_bytes == 80
    nvml = nvml_of(FakePynvml(Part("GPU-a", users={"Compute": [(1, figure)]})))
    assert isinstance(nvml.users(card), Unavailable)


def test_a_count_that_is_no_number_is_unavailable():
    class Odd(FakePynvml):
        def _nvmlDeviceGetCount(self):
            return "two"

    found = nvml_of(Odd(Part("GPU-a"))).devices()
    assert found == Unavailable("nvml", "TypeError: a figure is of type str, not a whole number")


def test_older_releases_and_drivers_are_asked_as_they_understand_it():
    class Old(FakePynvml):
        def _nvmlDeviceGetMemoryInfo(self, part):
            return super()._nvmlDeviceGetMemoryInfo(part)

        def _nvmlDeviceGetUUID(self, part):
            return part.uuid.encode()

    old = Old(Part("GPU-a", used=5, users={"Compute": [(1, 4)]}))
    old.missing = {"nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetMPSComputeRunningProcesses"}
    nvml = nvml_of(old)
    (card,) = nvml.devices()
    assert (card.uuid, card.used_bytes, card.trouble) == ("GPU-a", 5, ())
    assert nvml.users(card) == (CardUser(pid=1, used_bytes=4),)


def test_a_card_that_has_vanished_or_was_replaced_is_told():
    module = two_cards()
    nvml = nvml_of(module)
    first = nvml.devices()[0]
    module.parts[0] = Part("GPU-new", users={"Compute": [(1, 1)]})
    assert nvml.users(first) == Unavailable("nvml", "GPU 0 is not there any more: another one has its number")
    module.parts.clear()
    assert "nvmlDeviceGetHandleByIndex failed" in nvml.users(first).reason


# -- when it is asked ------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_before_the_first_question():
    loads = []
    nvml = Nvml(NvmlCalls(lambda: loads.append(1) or two_cards()))
    assert loads == []
    nvml.devices()
    nvml.devices()
    assert loads == [1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'pynvml'", name="pynvml"), "nvidia-ml-py is not installed"),
        (ImportError("it is broken"), "ImportError: it is broken"),
        (SyntaxError("what is that"), "nvidia-ml-py cannot be imported: SyntaxError: what is that"),
    ],
)
def test_without_nvidia_ml_py_the_reason_is_kept_and_a_second_ask_costs_nothing(error, reason):
    loads = []

    def load():
        loads.append(1)
        raise error

    nvml = Nvml(NvmlCalls(load))
    assert nvml.devices() == nvml.visible() == nvml.use() == Unavailable("nvml", reason)
    assert loads == [1]


def test_a_stand_in_that_a_test_has_put_in_its_place_is_not_believed_and_not_remembered():
    answers = [None, two_cards()]
    nvml = Nvml(NvmlCalls(lambda: answers.pop(0)))
    assert nvml.devices() == Unavailable("nvml", "the module pynvml is not the one of nvidia-ml-py")
    assert len(nvml.devices()) == 4


def test_without_a_driver_it_is_asked_once():
    module = two_cards()
    module.errors["nvmlInit"] = 12
    nvml = nvml_of(module)
    assert nvml.devices() == Unavailable("nvml", "there is no NVIDIA driver here (libnvidia-ml was not found)")
    module.errors.clear()
    assert nvml.devices() is nvml.given_up
    assert module.calls == ["nvmlInit"]


def test_somebody_else_may_shut_it_down():
    module = two_cards()
    nvml = nvml_of(module)
    before = nvml.devices()
    module.initialised = 0
    assert nvml.devices() == before


# -- a driver that hangs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetUUID"])
def test_a_driver_that_hangs_is_given_up_once_and_by_name(call):
    module = two_cards()
    module.delays[call] = 20  # far from the limit: a busy machine delays the calls that do answer, too
    nvml = nvml_of(module, limit_seconds=0.4)
    begin = time.monotonic()
    found = nvml.devices()
    first_seconds = time.monotonic() - begin
    again = [nvml.devices() for _ in range(100)]
    assert found == Unavailable(
        "nvml", f"the driver did not answer {call} within 400 ms, and is not asked again in this run"
    )
    assert all(answer is found for answer in again)
    assert 0.4 <= first_seconds <= time.monotonic() - begin < 10


def test_many_threads_wait_for_a_driver_that_hangs_no_longer_than_one():
    module = two_cards()
    module.delays["nvmlDeviceGetCount"] = 20
    nvml = nvml_of(module, limit_seconds=0.4)
    found = []
    threads = [threading.Thread(target=lambda: found.append(nvml.devices())) for _ in range(16)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin < 3
    assert {answer.reason for answer in found} == {nvml.given_up.reason}


def test_many_threads_get_their_own_answers():
    nvml = nvml_of(two_cards())
    card = nvml.devices()[0]
    wrong = []

    def ask():
        for _ in range(50):
            if len(nvml.devices()) != 4 or len(nvml.users(card)) != 3:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_thread_stays_and_none_is_seen():
    before = threading.enumerate()
    tasks = set(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else set()
    seen = []
    calls = NvmlCalls(two_cards)
    calls.ask(lambda call: seen.append(threading.active_count()))
    assert seen == [len(before)]
    deadline = time.monotonic() + 2
    while tasks and set(os.listdir("/proc/self/task")) - tasks and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not tasks or set(os.listdir("/proc/self/task")) <= tasks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("held", [False, True], ids=["idle", "in the middle of a question"])
def test_a_fork_asks_anew(held):
    module = two_cards()
    nvml = nvml_of(module)
    nvml.devices()
    module.delays["nvmlDeviceGetCount"] = 0.2 * held
    calls = len(module.calls)
    asker = threading.Thread(target=nvml.devices)
    asker.start()
    if not held:
        asker.join()
    while len(module.calls) == calls:
        time.sleep(0.001)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = nvml.devices()
        os.write(writer, f"{len(found)} {module.initialised}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "4 2"
    os.waitpid(pid, 0)
    asker.join()
