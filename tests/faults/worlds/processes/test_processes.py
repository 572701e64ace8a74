from conftest import start


def test_passes():
    pass


def test_leaves_one():
    start("sleep", "20")


def test_ends_its_own():
    process = start("sleep", "20")
    process.kill()
    process.wait()


def test_with_a_server(server):
    assert server.poll() is None


def test_leaves_a_tree():
    start("sh", "-c", "sleep 20 & sleep 20")


def test_server_still_runs(server, forgetful):
    assert server.poll() is None


def test_fails():
    start("sleep", "20")
    assert 0


def test_disowns(gpu_clean):
    process = start("sleep", "1")
    gpu_clean.disown(process.pid)
