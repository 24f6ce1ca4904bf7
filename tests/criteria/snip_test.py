import keras
import numpy as np

from snip_tf.criteria import ScoringContext, Snip
from snip_tf.network import prunable_weights
from snip_tf.scoring.objective import Objective


def test_w_dl_dw_is_the_gradient_of_the_connection_indicators():
    """Stores c, and differentiates by it, as the paper defines the score."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 2))
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    w1, b1, w2, b2 = (w.astype(np.float64) for w in model.get_weights())

    def loss(c1, c2):
        outputs = np.tanh(x @ (c1 * w1) + b1) @ (c2 * w2) + b2
        return np.mean((outputs - y) ** 2)

    batch = (x.astype(np.float32), y.astype(np.float32), None)
    context = ScoringContext(
        model, prunable_weights(model), [batch], objective=Objective("mse")
    )
    scores = Snip()(context).values()
    for position, score in enumerate(map(np.asarray, scores)):
        for index in np.ndindex(score.shape):
            sides = []
            for step in (1e-6, -1e-6):
                indicators = [np.ones_like(w1), np.ones_like(w2)]
                indicators[position][index] += step
                sides.append(loss(*indicators))
            expected = abs(sides[0] - sides[1]) / 2e-6
            np.testing.assert_allclose(score[index], expected, rtol=1e-3, atol=1e-7)
