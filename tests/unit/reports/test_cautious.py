"""What a file says of a process holds no value of its arguments."""

import pytest

from pytest_gpuclean.reports.cautious import without_values
from unit.reports.world import left

SECRET = "hunter2sekret"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/usr/bin/python3 /usr/local/bin/tensorboard --logdir runs --port 6006", "python3 … --logdir … --port 6006"),
        ("python train.py --epochs 10 --token=abc", "python train.py --epochs 10 --token=…"),
        ("python -m torch.distributed.run --nproc 2 x.py", "python -m torch.distributed.run --nproc 2 …"),
        ("python -c import time; time.sleep(9)", "python -c …"),
        ("sleep 60", "sleep 60"),
        ("server --port=8080", "server --port=8080"),
        ("[kworker]", "[kworker]"),
        ("", ""),
    ],
)
def test_the_program_and_the_names_of_options_are_told(command, told):
    assert without_values(left(command=command)).command == told


@pytest.mark.parametrize(
    "command",
    [
        f"mysql -p{SECRET}",
        f"mysql --password={SECRET}",
        f"mysql --password {SECRET}",
        f"curl -H Authorization: Bearer {SECRET} https://user:{SECRET}@example.com/{SECRET}.py",
        f"env TOKEN={SECRET} server",
        f"TOKEN={SECRET} server",
        f"python -c print('{SECRET}') {SECRET}.py",
        f"python -m server {SECRET}",
        f"python train.py {SECRET} {SECRET}.sh",
        f"sh -c curl {SECRET}",
        f"server --{SECRET * 9}",
        f"git clone https://{SECRET}@example.com/a.py",
        f"python - {SECRET}",
        f"server 1234567{SECRET}",
        "server 4111111111111111",
    ],
)
def test_no_value_is_told(command):
    told = without_values(left(command=command)).command
    assert SECRET not in told
    assert "4111111111111111" not in told


def test_the_label_of_code_has_no_code():
    assert without_values(left(name=f"python -c login('{SECRET}')")).name == "python -c …"
    assert without_values(left(name="TensorBoard")).name == "TensorBoard"
