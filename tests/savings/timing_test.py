import time

from snip_tf.savings.timing import fastest, median_seconds


def test_the_fastest_is_the_one_of_the_least_time():
    assert fastest({"a": 2.0, "b": 1.0, "c": 3.0}) == "b"


def test_slow_candidates_are_tried_less():
    calls = dict.fromkeys(("quick", "slow"), 0)

    def taking(name, seconds):
        def call(x):
            assert x == 5
            calls[name] += 1
            time.sleep(seconds)

        return call

    quick, slow = taking("quick", 0.001), taking("slow", 0.01)
    seconds = median_seconds({"quick": quick, "slow": slow}, 5)
    assert fastest(seconds) == "quick"
    assert 0.001 <= seconds["quick"] < seconds["slow"]
    assert calls["slow"] < 10 < calls["quick"]
