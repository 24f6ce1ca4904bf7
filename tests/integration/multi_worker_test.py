"""scripts/train.py on two machines, which are two processes here.

How workers meet, and what they refuse before, is in cluster_test.
"""

import json
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

import snip_tf
from tests import programs

pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow

FLAGS = (
    "--arch=lenet300",
    "--target_sparsity=0.95",
    "--optimizer=momentum",
    "--lr=0.03",
    "--save_interval=20",
)


def free_ports(count):
    servers = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


class Workers:
    """Two processes of the main program that share a folder."""

    def __init__(self, logdir):
        self.logdir = logdir
        self.hosts = [f"localhost:{port}" for port in free_ports(2)]
        self.started = []

    def start(self, index, *arguments, logdir=None):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": self.hosts}, "task": task}
        own = ("--strategy=multi_worker", f"--logdir={logdir or self.logdir}")
        options = programs.process(
            "train.py",
            [*FLAGS, *own, *arguments],
            self.logdir.parent,
            TF_CONFIG=json.dumps(config),
        )
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started = subprocess.Popen(**options, text=True)
        self.started.append(started)
        return started


@pytest.fixture
def workers(tmp_path):
    both = Workers(tmp_path / "two")
    yield both
    for process in both.started:
        process.kill()
        process.wait()


def finish(process):
    output, _ = process.communicate(timeout=500)
    return process.returncode, output


def alone(logdir, *arguments):
    given = (*FLAGS, f"--logdir={logdir}", *arguments)
    done = programs.run_program("train.py", *given, cwd=logdir.parent)
    assert done.returncode == 0, done.stderr


def losses(logdir):
    history = json.loads((logdir / "history.json").read_text())
    return [check["loss"] for check in history]


def test_two_workers_prune_and_train_as_one_device(workers, tmp_path, record_property):
    steps = ("--train_iterations=50", "--check_interval=1")
    ended = [finish(p) for p in [workers.start(i, *steps) for i in range(2)]]
    assert [code for code, _ in ended] == [0, 0], ended
    assert "Results are in" in ended[0][1]
    assert "Results are in" not in ended[1][1], "only the chief writes"
    alone(tmp_path / "one", *steps)
    one, two = (snip_tf.load_masks(tmp_path / d / "masks.npz") for d in ("one", "two"))
    differing = sum(int((one[path] != two[path]).sum()) for path in one)
    print(f"{differing} connections of two workers are not those of one device")
    record_property("differing_by_rounding", differing)
    assert differing <= 2  # two that all but tie, swapped by the order of a sum
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 50
    np.testing.assert_allclose(two, one, atol=1e-4)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_that_is_killed_and_started_again(workers, tmp_path, killed):
    steps = ("--train_iterations=200", "--check_interval=10")
    processes = [workers.start(index, *steps) for index in range(2)]
    checkpoint = tmp_path / "two" / "checkpoint.keras"
    while not checkpoint.exists():
        assert processes[0].poll() is None
        time.sleep(0.05)
    processes[killed].send_signal(signal.SIGKILL)
    processes[killed].communicate()
    processes[killed] = workers.start(killed, *steps)
    ended = [finish(process) for process in processes]
    assert [code for code, _ in ended] == [0, 0], ended
    assert "Lost a worker" in ended[1 - killed][1]
    assert all("Continuing at iteration" in output for _, output in ended)
    history = json.loads((tmp_path / "two" / "history.json").read_text())
    assert [check["iteration"] for check in history] == list(range(10, 201, 10))
    pruned = snip_tf.load_masks(tmp_path / "two" / "masks.npz")
    kept = sum(mask.sum() for mask in pruned.values())
    assert kept == round(0.05 * sum(mask.size for mask in pruned.values()))
    # As if nothing had been.
    alone(tmp_path / "one", *steps)
    np.testing.assert_allclose(
        losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-4
    )


def test_refuses_workers_of_different_flags(workers):
    first = workers.start(0, "--train_iterations=50", "--max_examples=200")
    second = workers.start(1, "--train_iterations=60", "--batch_size=21")
    for code, output in map(finish, (first, second)):
        assert code == 1
        last = output.strip().splitlines()[-1]
        assert "--train_iterations is 50 and 60" in last
        assert "--max_examples is 200 and None" in last
        assert "--batch_size is 100 and 21" in last
    assert not workers.logdir.exists()


def test_refuses_a_folder_that_is_not_shared(workers, tmp_path):
    first = workers.start(0, "--train_iterations=50")
    second = workers.start(1, "--train_iterations=50", logdir=tmp_path / "other")
    for code, output in map(finish, (first, second)):
        assert code == 1
        assert "which all workers must find in one --logdir" in output


def test_says_which_worker_never_comes(workers):
    process = workers.start(0, "--worker_timeout=3")
    code, output = finish(process)
    assert code == 1
    assert "all 2 workers in time" in output
    assert f"worker 1 ({workers.hosts[1]})" in output
