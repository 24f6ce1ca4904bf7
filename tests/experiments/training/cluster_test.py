import concurrent.futures
import contextlib
import json
import socket
import time

import pytest

from snip_tf.experiments.training import cluster


def set_config(monkeypatch, cluster_spec, kind="worker", index=0):
    task = {"type": kind, "index": index}
    config = {"cluster": cluster_spec, "task": task}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


@pytest.fixture
def listening():
    """A port that something listens on."""
    with socket.create_server(("localhost", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_ports():
    with contextlib.ExitStack() as stack:
        servers = [socket.create_server(("localhost", 0)) for _ in range(3)]
        for server in servers:
            stack.enter_context(server)
        return [server.getsockname()[1] for server in servers]


def test_no_cluster_without_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.from_environment() is None
    monkeypatch.setenv("TF_CONFIG", '{"environment": "cloud"}')
    assert cluster.from_environment() is None


def test_reads_what_a_kubernetes_tfjob_sets(monkeypatch):
    hosts = ["job-worker-0.default.svc:2222", "job-worker-1.default.svc:2222"]
    set_config(monkeypatch, {"worker": hosts}, index=1)
    assert cluster.from_environment() == cluster.Cluster(tuple(hosts), 1)
    assert not cluster.from_environment().is_chief


def test_a_chief_comes_first(monkeypatch):
    spec = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    set_config(monkeypatch, spec, "worker", 1)
    assert cluster.from_environment() == cluster.Cluster(("a:1", "b:1", "c:1"), 2)
    set_config(monkeypatch, spec, "chief", 0)
    assert cluster.from_environment().is_chief


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"cluster": {"worker": ["a:1"]}}', "no 'task'"),
        ('{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}', "'items'"),
        (
            '{"cluster": {"worker": {"a:1": 0}}, "task": {"type": 0, "index": 0}}',
            "lists",
        ),
    ],
)
def test_refuses_what_is_not_a_tf_config(monkeypatch, text, problem):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="Expected TF_CONFIG to be like") as error:
        cluster.from_environment()
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("spec", "kind", "index", "problem"),
    [
        ({"worker": ["a:1"]}, "worker", 1, "no worker with index 1"),
        ({"worker": ["a:1"]}, "worker", -1, "no worker with index -1"),
        ({"worker": ["a:1"]}, "worker", 0.7, "a whole number"),
        ({"worker": ["a:1"], "ps": ["b:1"]}, "worker", 0, "ps is neither"),
        ({"worker": ["a:1"]}, "evaluator", 0, "evaluator is neither"),
        ({"worker": ["a:1"], "chief": ["b:1", "c:1"]}, "worker", 0, "not one chief"),
        ({"worker": ["a"]}, "worker", 0, "'a' is not host:port"),
        ({"worker": ["a:99999"]}, "worker", 0, "'a:99999' is not host:port"),
        ({"worker": ["a:²"]}, "worker", 0, "'a:²' is not host:port"),
        ({"worker": ["http://a:1"]}, "worker", 0, "'http://a:1' is not host:port"),
        ({"worker": ["::1:5"]}, "worker", 0, "'::1:5' is not host:port"),
        ({"worker": ["a:1"]}, ["worker"], 0, "['worker'] is neither"),
        ({"worker": ["a:1", "a:1"]}, "worker", 0, "the same address"),
    ],
)
def test_refuses_a_cluster_that_cannot_be(monkeypatch, spec, kind, index, problem):
    set_config(monkeypatch, spec, kind, index)
    with pytest.raises(ValueError, match="Expected TF_CONFIG to be like") as error:
        cluster.from_environment()
    assert problem in str(error.value)


def test_refuses_a_port_in_use(listening):
    own = cluster.Cluster((f"localhost:{listening}", "localhost:1"), 0)
    with pytest.raises(OSError, match=f"localhost:{listening}, to be free"):
        cluster.connect(own, 1)


def test_the_chief_names_the_workers_that_do_not_come(free_ports):
    workers = tuple(f"localhost:{port}" for port in free_ports)

    def come(index):
        with pytest.raises(TimeoutError, match="all 3 workers") as error:
            cluster.connect(cluster.Cluster(workers, index), 2)
        return str(error.value)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        messages = list(pool.map(come, [0, 1]))
    for message in messages:
        assert message.endswith(f"nothing from worker 2 ({workers[2]}).")


def test_a_chief_that_does_not_come_is_named(listening, free_ports):
    # Something else has its port, and says nothing.
    workers = (f"localhost:{listening}", f"localhost:{free_ports[0]}")
    with pytest.raises(TimeoutError, match=f"worker 0 .*{listening}"):
        cluster.connect(cluster.Cluster(workers, 1), 0.5)


def test_waits_for_the_given_time(free_ports):
    workers = tuple(f"localhost:{port}" for port in free_ports[:2])

    def come(index):
        # A socket cannot wait for 300 centuries at once.
        cluster._meet(cluster.Cluster(workers, index), 1e12 if index else 5)
        return index

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(come, [0, 1])) == [0, 1]


def test_workers_meet_in_any_order(free_ports):
    workers = tuple(f"localhost:{port}" for port in free_ports)
    strangers = []

    def come(index):
        time.sleep(0.5 * ((index + 1) % 3))
        # Strangers knock too, and some say nothing.
        for words in (b"GET /", b""):
            with contextlib.suppress(OSError):
                stranger = socket.create_connection(("localhost", free_ports[0]))
                stranger.sendall(words)
                strangers.append(stranger)
        cluster._meet(cluster.Cluster(workers, index), 30)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(come, range(3))) == [None] * 3
    for stranger in strangers:
        stranger.close()
