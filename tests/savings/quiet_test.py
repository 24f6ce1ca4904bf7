import logging
import os
import threading

import pytest

from snip_tf.savings.quiet import quiet


def write(line):
    os.write(2, line.encode())  # as C++ does, past Python


def test_holds_back_output(capfd):
    write("before ")
    with quiet() as written:
        write("inside")
        assert written() == "inside"
    write("after")
    assert capfd.readouterr().err == "before after"


def test_an_error_ends_it(capfd):
    with pytest.raises(KeyboardInterrupt), quiet():
        raise KeyboardInterrupt
    write("after")
    assert capfd.readouterr().err == "after"


def test_threads_take_turns(capfd):
    def one():
        for _ in range(50):
            with quiet() as written:
                write("inside")
                assert written() == "inside"

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write("after")
    assert capfd.readouterr().err == "after"


def test_a_process_may_have_closed_its_standard_error():
    kept = os.dup(2)
    os.close(2)
    try:
        with quiet() as written:
            assert written() == ""
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_warnings_of_tensorflow_stay(caplog):
    logger = logging.getLogger("tensorflow")
    with caplog.at_level(logging.INFO, logger="tensorflow"), quiet():
        logger.info("Assets written to: ...")
        logger.warning("something")
    assert [record.message for record in caplog.records] == ["something"]
