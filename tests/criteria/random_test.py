"""What must hold of random scores, and of a criterion derived from them."""

import snip_tf
from snip_tf import criteria
from tests.criteria.networks import bits, dense


def test_random_takes_the_seed_of_the_call():
    model = dense(12, 9, 4)
    first, second, other = (
        bits(snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=seed))
        for seed in (3, 3, 4)
    )
    assert (first == second).all()
    assert (first != other).any()


class Halved(criteria.Random):
    """A criterion of one's own, with a constructor of its own."""

    def __init__(self, path, seed=None):
        super().__init__(seed)
        object.__setattr__(self, "path", path)

    def __call__(self, context):
        scores = super().__call__(context)
        return scores | {self.path: scores[self.path] / 2}


def test_a_subclass_stays_what_it_is():
    model = dense(12, 9, 4)

    def masks(criterion, seed=None):
        options = {"sparsity": 0.5, "criterion": criterion, "seed": seed}
        return bits(snip_tf.prune_model(model, **options))

    path = next(iter(snip_tf.prunable_weights(model)))
    own = Halved(path)
    assert (masks(own, 3) == masks(own, 3)).all()
    assert (masks(own, 3) == masks(Halved(path, seed=3), 4)).all()
    assert (masks(own, 3) != masks(own, 4)).any()
    assert (masks(own, 3) != masks("random", 3)).any()
    assert own.seed is None
