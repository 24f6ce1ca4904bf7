import pytest

from snip_tf import criteria


def test_by_name_or_itself():
    assert criteria.get("snip") == criteria.Snip()
    force = criteria.Force(steps=3)
    assert criteria.get(force) is force


def test_a_function_has_the_defaults():
    criterion = criteria.get(lambda context: {"a": 1})
    assert isinstance(criterion, criteria.Criterion)
    assert (criterion.needs_data, criterion.steps, criterion.revives) == (
        True,
        None,
        False,
    )
    assert criterion(None) == {"a": 1}


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"'snip'.*Received: criterion='snipp'"):
        criteria.get("snipp")
    with pytest.raises(ValueError, match="Received: criterion="):
        criteria.get(["snip"])


def test_a_criterion_takes_a_scoring_context():
    words = r"`criterion` to be a function of \(context\).*of \(model, weights\)"
    with pytest.raises(TypeError, match=words):
        criteria.get(lambda model, weights: {})
