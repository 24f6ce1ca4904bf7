"""The models of keras.applications, and KerasHub's where it is installed."""

import keras
import numpy as np
import pytest

import snip_tf

IMAGES = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
LOGITS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def application(name):
    def make():
        make_network = getattr(keras.applications, name)
        network = make_network(input_shape=(32, 32, 3), weights=None, classes=5)
        return network, IMAGES, np.arange(4), "sparse_categorical_crossentropy"

    return make


def tokens(*names):
    token_ids = np.random.default_rng(0).integers(1, 50, (4, 8))
    inputs = {
        "token_ids": token_ids,
        "padding_mask": np.ones_like(token_ids),
        "segment_ids": np.zeros_like(token_ids),
    }
    return {name: inputs[name] for name in names}


def hub():
    return pytest.importorskip("keras_hub").models


TEXT = {
    "vocabulary_size": 60,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 16,
}


def bert():
    x = tokens("token_ids", "padding_mask", "segment_ids")
    y = {"sequence_output": np.zeros((4, 8, 16)), "pooled_output": np.zeros((4, 16))}
    return hub().BertBackbone(**TEXT), x, y, dict.fromkeys(y, "mse")


def bert_classifier():
    model = hub().BertTextClassifier(bert()[0], num_classes=3)
    return model, bert()[1], np.arange(4) % 3, LOGITS_LOSS


def gpt2():
    x = tokens("token_ids", "padding_mask")
    return hub().GPT2Backbone(**TEXT), x, np.zeros((4, 8, 16)), "mse"


def vit():
    model = hub().ViTBackbone((32, 32, 3), 8, 2, 2, 16, 32)
    return model, IMAGES, np.zeros((4, 17, 16)), "mse"


def resnet():
    model = hub().ResNetBackbone(
        [64],
        [3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )
    return model, IMAGES, np.zeros((4, *model.output_shape[1:])), "mse"


MODELS = {
    "MobileNetV3Small": application("MobileNetV3Small"),
    "ResNet50V2": application("ResNet50V2"),
    "EfficientNetV2B0": application("EfficientNetV2B0"),
    "DenseNet121": application("DenseNet121"),
    "ConvNeXtTiny": application("ConvNeXtTiny"),
    "KerasHub BertBackbone": bert,
    "KerasHub BertTextClassifier": bert_classifier,
    "KerasHub GPT2Backbone": gpt2,
    "KerasHub ViTBackbone": vit,
    "KerasHub ResNetBackbone": resnet,
}


def outputs(model, x):
    return [np.asarray(output) for output in keras.tree.flatten(model(x))]


@pytest.mark.parametrize("name", MODELS)
def test_lives(name, tmp_path):
    keras.utils.set_random_seed(0)
    model, x, y, loss = MODELS[name]()
    # Operation by operation: a step is sooner done than traced.
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.9, batch_size=4)
    assert isinstance(pruned, type(model))
    assert [layer.name for layer in pruned.layers] == [
        layer.name for layer in model.layers
    ]
    masks = snip_tf.get_masks(pruned)
    assert list(masks) == list(snip_tf.prunable_weights(model))
    before = pruned.get_weights()
    pruned.train_on_batch(x, y)
    moved = [
        (old != new).any()
        for old, new in zip(before, pruned.get_weights(), strict=True)
    ]
    assert np.mean(moved) > 0.5
    for path, weight in snip_tf.prunable_weights(pruned).items():
        assert not weight.numpy()[~masks[path]].any(), path

    expected = outputs(pruned, x)
    stripped = snip_tf.strip_pruning(pruned)
    assert type(stripped) is type(model)
    np.testing.assert_equal(outputs(stripped, x), expected)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(pruned)
    np.testing.assert_equal(snip_tf.get_masks(loaded), masks)
    np.testing.assert_equal(outputs(loaded, x), expected)
