import base64
import os

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.savings import sparse_format
from tests.random_networks import prune_at_random
from tests.savings import sparse_files
from tests.versions import since

layers = keras.layers


@keras.saving.register_keras_serializable("sparse_files_test")
class Holder(layers.Layer):
    """A weight of any shape and type."""

    def __init__(self, shape, kind, **options):
        super().__init__(**options)
        self.options = {"shape": shape, "kind": kind}
        self.held = self.add_weight(tuple(shape), "zeros", kind, trainable=False)
        self.built = True

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), **self.options}


def sent_through(path, array):
    """The coding of an array in a file, and the same as it is loaded."""
    holder = Holder(list(array.shape), array.dtype.name, name="holder")
    holder.held.assign(array)
    model = keras.Sequential([keras.Input((2,)), holder])
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    [written], [coding] = sparse_files.arrays(path), sparse_files.codings(path)
    loaded = np.asarray(snip_tf.load_sparse(path).weights[0])
    for found in (written, loaded):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()
    return coding


@hypothesis.given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32, bool]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=30),
        elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1]),
    )
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_any_array_comes_back(tmp_path_factory, array):
    sent_through(tmp_path_factory.getbasetemp() / "any", array)


@hypothesis.given(st.lists(st.integers(0, 2000), min_size=1, max_size=20))
@hypothesis.settings(max_examples=20, deadline=None)
def test_gaps_of_any_length(tmp_path_factory, passed):
    array = np.zeros(100_000, np.float32)
    array[np.cumsum(np.array(passed) + 1) - 1] = 1
    assert sent_through(tmp_path_factory.getbasetemp() / "gaps", array) == "gaps"


def test_negative_zeros_and_nan_come_back_bit_for_bit(tmp_path):
    array = np.array([0.0, -0.0, np.nan, np.inf, 1e-45] + [0.0] * 200, np.float32)
    assert sent_through(tmp_path / "m", array) != "all"


@pytest.fixture(scope="module")
def model():
    stack = [layers.Conv2D(8, 3, dtype="bfloat16"), layers.Flatten(), layers.Dense(40)]
    stack += [layers.BatchNormalization(), layers.Dense(3, dtype="float32")]
    model = keras.Sequential([keras.Input((8, 8, 2)), *stack])
    model.compile("adam", "mse")
    return prune_at_random(model, 0.95, np.random.default_rng(0))


@pytest.fixture
def path(model, tmp_path):
    snip_tf.export(model, tmp_path / "m", format="sparse", print_fn=lambda line: None)
    return tmp_path / "m"


def test_a_model_comes_back_bit_for_bit(model, path):
    loaded = snip_tf.load_sparse(path)
    stripped = snip_tf.strip_pruning(model)
    assert loaded.compiled
    assert loaded.to_json() == stripped.to_json()
    for new, old in zip(loaded.weights, stripped.weights, strict=True):
        assert new.dtype == old.dtype
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    x = np.random.default_rng(0).random((3, 8, 8, 2))
    np.testing.assert_array_equal(loaded(x), stripped(x))


@keras.saving.register_keras_serializable("sparse_files_test")
class Block(layers.Layer):
    """Makes layers, which get the next names that this process has."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.first = layers.Dense(units)

    def build(self, shape):
        self.first.build(shape)

    def call(self, x):
        return self.first(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("sparse_files_test")
class Own(keras.Model):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.first, self.second = Block(units), layers.Dense(2)

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(9, 3, size=(50, 4)))
    return layer


def quantized(mode):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(2)])
    model(np.ones((1, 4)))
    for layer in model.layers:
        layer.quantize(mode)
    return model


UNUSUAL = {
    # Whose weights Keras makes in another order when it is loaded.
    "a model in float8": lambda: quantized("float8"),
    "a model in int8": lambda: quantized("int8"),
    "a model in int4": lambda: quantized("int4"),
    "layers that make layers": lambda: keras.Sequential(
        [keras.Input((4,)), Block(4), Block(2)]
    ),
    "a subclassed model": lambda: Own(3),
    "an adapted layer": lambda: keras.Sequential(
        [keras.Input((4,)), adapted(), layers.Dense(2)]
    ),
}


SINCE = {"a model in int4": "3.11"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=since(SINCE.get(k, "3.8"))) for k in UNUSUAL]
)
def test_other_models_come_back(kind, tmp_path):
    model, x = UNUSUAL[kind](), np.random.default_rng(1).normal(size=(3, 4))
    expected = model(x)
    snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    np.testing.assert_array_equal(snip_tf.load_sparse(tmp_path / "m")(x), expected)


def test_refuses_layers_that_keep_more_than_weights(tmp_path):
    lookup = layers.StringLookup(vocabulary=["a", "b"], name="lookup")
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, layers.Embedding(3, 2)(lookup(inputs)))
    with pytest.raises(ValueError, match="'lookup' of class StringLookup"):
        snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_refuses_to_write_what_it_would_not_read(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sparse_format, "_MOST_HEADER", 1000)
    with pytest.raises(ValueError, match=r"at most 1,000 .*format='keras'"):
        snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("all_zero", [False, True])
def test_a_large_weight_comes_back(tmp_path, all_zero):
    model = keras.Sequential([keras.Input((1200,)), layers.Dense(1000)])
    kernel = np.zeros((1200, 1000), np.float32)  # more numbers than any may have
    kernel[5, 5:50] = not all_zero
    model.layers[0].set_weights([kernel, np.zeros(1000)])
    snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    loaded = snip_tf.load_sparse(tmp_path / "m")
    np.testing.assert_array_equal(loaded.get_weights()[0], kernel)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        snip_tf.load_sparse(tmp_path / "m")


def test_a_path_of_bytes(model, path):
    loaded = snip_tf.load_sparse(os.fsencode(path))
    assert len(loaded.weights) == len(snip_tf.strip_pruning(model).weights)


# A file of version 0.1.0 of the library.
OLD = """
b8cyHUvy?5b8umDb7dfHZ)9a`ATbIk0ssI20001Z+U-`~Yuhjo{#SyZLl?IpggqBVVGo0CFAKq3?6WO)
kzD;)o0k0V(<yf9IF1)s7=`6c+@0?G?)06c*J!OWr0C=5l~<0?FQcER!9?RxloA+|NLUB+SA29RtpEx>
C38`PolStEj6GI^kgy85taj*4ncY-)9?JbUANoa+NH-^7a#CRLZlkStYb=DZs4;62NJqpTf(>fp4T~et
o7#7T{U9r6KeMv~y#kw-i76pev0#kxXtr!swrAySrUGr)m;)IuUqew~)-p7J&m68QE0hFk{DXC!U(7v9
PolqtB~bo;j><`4`K0E44XG8sfE&X5HIn1h&S0_<VBTnYN)jm%eybOxc=1Qp!}+G=?<wFDDXr{xDRQOP
oe~U&6WbkiBv=^<JfnHDDQ7#z;WD{^za;zvwK9i9hcW9m`2a_tYt)*5;M41=cX<#K6k<D@`W%lA{N3;p
jxO2L8}16{bAqy@)%RVek49~KG41F0^!}tjog8VOghbFC^*0yDRsR2z{O1>xKM?&3`LBZh<Jp<|kFWB-
%Kw!7rxUOL<v#q>3vrQWCUkdQ3Bp!1Pha$eq9|?sqpZM|%}46Pu3_Ql*W{b=(4P1nrYaM%2t&f+XLcJK
RJ4ev<54`BEW@-PV1xl^Bb<@G9`$|pyW7LW{w3_=J`WxLWA*~74*59TRBZ&$pbvpxyZ8WMe_ad~F!!BV
Zhr%$0XR{3+H;&4HGSV2014g$HUI#?KmY)MKL7v#KmY&$K>z@tKmY*1KmY)sKmY&$K>z?iKmY*1KmY)M
KmY)MKL7y0KmY*XKmY&$KmY)MKL7xLKL7xrKmY)MKL7wgKmY)MKmY)MKmY)MKL7xLKL7y0KmY&$0001h
KL7v#KmY(hKmY)MKmY)sKmY*1KmY*XKzQ2I{x1Rm0+s<k0000#0002MfIxsifIt9206>61fIomh070NY
KtKRNpg;gYfIomh;6UI&fIxsifIy%?06^eCfIomhKtRAiz(Bx206_pj06>6006@S%06_pjz(4>&o?;l%
0Hv^3N>#=rvOE4~KuKg4jjQ^6soI~6OBWGj
"""


@since("3.15")  # whose initializers have settings of their own
def test_a_file_of_before_is_read(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(base64.b85decode(OLD.replace("\n", "")))
    assert sparse_files.codings(path) == ["bits", "all", "gaps", "all"]
    loaded = snip_tf.load_sparse(path)
    half, bias, few, last = map(np.asarray, loaded.weights)
    assert [layer.name for layer in loaded.layers] == ["half", "few", "all"]
    np.testing.assert_array_equal(bias, range(8))
    assert (half.sum(), last.astype(float).sum()) == (97, 196)
    expected = np.zeros((8, 40))
    expected[1, 3], expected[7, 39] = 0.5, -2
    np.testing.assert_array_equal(few, expected)
    # What is written today is read and stored in the same way.
    snip_tf.export(loaded, tmp_path / "new", "sparse", print_fn=lambda line: None)
    assert sparse_files.codings(tmp_path / "new") == sparse_files.codings(path)
