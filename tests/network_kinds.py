"""Networks of keras.applications and KerasHub, as kinds of models.

Those of keras.applications end at an early layer, after at least one block of each
type: XLA takes minutes for a whole network. `applications_test.py` has the whole ones.
"""

import importlib.util

import keras
import numpy as np

from tests.kinds import EXAMPLES, KINDS, compiled, kind, labels, normal

HAS_KERAS_HUB = importlib.util.find_spec("keras_hub") is not None

NETWORKS = {}
IMAGE = (32, 32, 3)
# Each network, and the layer at which it ends here.
APPLICATIONS = {
    "MobileNetV3Small": "expanded_conv_4_add",
    "ResNet50V2": "conv3_block1_out",
    "EfficientNetV2B0": "block4b_add",
    "DenseNet121": "conv3_block1_concat",
    "ConvNeXtTiny": "convnext_tiny_stage_1_block_0_identity",
}


def application(name, end):
    def make():
        network = getattr(keras.applications, name)
        whole = network(input_shape=IMAGE, weights=None, include_top=False)
        features = whole.get_layer(end).output
        pooled = keras.layers.GlobalAveragePooling2D()(features)
        model = keras.Model(whole.input, keras.layers.Dense(3)(pooled))
        return compiled(model), normal(*IMAGE), labels()

    return make


for name, end in APPLICATIONS.items():
    title = f"keras.applications: {name}, up to `{end}`"
    kind(title, NETWORKS)(application(name, end))


TEXT = {
    "vocabulary_size": 60,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 16,
}
LENGTH = 8


def hub_kind(title):
    """A kind of KerasHub's, where that is installed."""
    return kind(f"KerasHub: {title}", NETWORKS) if HAS_KERAS_HUB else lambda make: make


def tokens(*more):
    ids = np.random.default_rng(0).integers(1, 50, (EXAMPLES, LENGTH))
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    return x | {name: np.zeros_like(ids) for name in more}


def bert_backbone():
    import keras_hub

    return keras_hub.models.BertBackbone(**TEXT)


@hub_kind("BertBackbone")
def bert():
    y = {
        "sequence_output": normal(LENGTH, 16),
        "pooled_output": normal(16, seed=1),
    }
    model = compiled(bert_backbone(), loss=dict.fromkeys(y, "mse"))
    return model, tokens("segment_ids"), y


@hub_kind("BertTextClassifier")
def bert_classifier():
    import keras_hub

    model = keras_hub.models.BertTextClassifier(bert_backbone(), num_classes=3)
    return compiled(model), tokens("segment_ids"), labels()


@hub_kind("GPT2Backbone")
def gpt2():
    import keras_hub

    model = compiled(keras_hub.models.GPT2Backbone(**TEXT), loss="mse")
    return model, tokens(), normal(LENGTH, 16)


@hub_kind("ViTBackbone")
def vit():
    import keras_hub

    model = keras_hub.models.ViTBackbone(IMAGE, 8, 2, 2, 16, 32)
    return compiled(model, loss="mse"), normal(*IMAGE), normal(17, 16, seed=1)


@hub_kind("ResNetBackbone")
def resnet():
    import keras_hub

    model = keras_hub.models.ResNetBackbone(
        [64],
        [3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=IMAGE,
    )
    targets = normal(*model.output_shape[1:], seed=1)
    return compiled(model, loss="mse"), normal(*IMAGE), targets


ALL_KINDS = KINDS | NETWORKS
