import pytest

from snip_tf import criteria
from snip_tf.criteria.snip import snip


def test_by_name_or_itself():
    assert criteria.get("snip") is snip
    assert criteria.get(max) is max


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"'snip'.*Received: criterion='snipp'"):
        criteria.get("snipp")
    with pytest.raises(ValueError, match="Received: criterion="):
        criteria.get(["snip"])


def test_a_criterion_takes_what_criteria_are_given():
    words = r"function of \(model, weights, batches, \*, loss, training\).*of \(model\)"
    with pytest.raises(TypeError, match=words):
        criteria.get(lambda model: {})
