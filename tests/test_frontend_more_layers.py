"""Normalisation by sample, adaptive pooling and preprocessing layers, compared with Keras itself.

The models in single precision are compiled too: bundles and ONNX files give the same answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from keras_models import Group, check_group, group_id, variants

SINGLE_IN_KERAS = frozenset({"AutoContrast", "CenterCrop", "Resizing", "UpSampling2D"})
"""Layers that Keras computes in single precision even in a model of double precision."""

NOT_IN_DOUBLE = frozenset({"AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D"})
"""Layers for which TensorFlow has no double precision."""


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


GROUPS: list[Group] = [
    variants(
        "LayerNormalization",
        (4, 5, 3),
        {},
        {"axis": 1},
        {"axis": [1, 3]},
        {"scale": False, "center": False, "epsilon": 0.1},
        rms_scaling=True,
    ),
    variants("RMSNormalization", (4, 5, 6), {}, {"axis": [3, 2]}, {"axis": (1, 2, 3)}, {"epsilon": 0.1}),
    variants("RMSNormalization", (4, 6, 6), axis=2),
    variants("RMSNormalization", (None, 6)),
    variants("UnitNormalization", (4, 5, 6), {}, {"axis": 1}, {"axis": [1, 3]}),
    variants("UnitNormalization", (None, 6)),
    variants(
        "GroupNormalization",
        (4, 5, 6),
        {},
        {"groups": 2, "scale": False},
        {"groups": 6, "center": False},
        {"groups": -1, "epsilon": 0.1},
        {"groups": 1, "center": False, "scale": False},
        {"groups": 2, "axis": 1},
        {"groups": 5, "axis": -2},
        groups=3,
    ),
    variants("GroupNormalization", (None, None, 6), groups=2),
    variants("GroupNormalization", (6,), groups=2),
    *(
        group
        for name in ("Average", "Max")
        for group in (
            variants(
                f"Adaptive{name}Pooling1D",
                (12, 3),
                {"output_size": 4},
                {"output_size": 5},
                {"output_size": 12},
                {"output_size": 17},
                {"output_size": 5, "data_format": "channels_first"},
            ),
            variants(f"Adaptive{name}Pooling1D", (7, 3), output_size=3),
            variants(
                f"Adaptive{name}Pooling2D",
                (9, 10, 7),
                {"output_size": (3, 5)},
                {"output_size": 4},
                {"output_size": (2, 7)},
                {"output_size": (4, 3), "data_format": "channels_first"},
            ),
            variants(f"Adaptive{name}Pooling3D", (6, 5, 4, 7), {"output_size": 2}, {"output_size": (2, 3, 3)}),
        )
    ),
    # TensorFlow crashes where the maximum is taken over a whole axis.
    variants("AdaptiveAveragePooling2D", (9, 10, 7), {"output_size": (1, 1)}, {"output_size": (1, 7)}),
    variants(
        "Resizing",
        (8, 6, 3),
        *({"interpolation": name} for name in ("bicubic", "lanczos3", "lanczos5", "area")),
        *({"interpolation": name, "antialias": True} for name in ("nearest", "bilinear", "bicubic", "lanczos3", "area")),
        {"height": 16, "width": 3, "interpolation": "bicubic"},
        {"height": 8, "width": 6, "interpolation": "lanczos3"},
        {"height": 3, "width": 9, "interpolation": "lanczos5", "antialias": True},
        {"interpolation": "bicubic", "data_format": "channels_first"},
        {"crop_to_aspect_ratio": True},
        {"crop_to_aspect_ratio": True, "width": 9, "interpolation": "bicubic"},
        {"crop_to_aspect_ratio": True, "height": 12},
        {"pad_to_aspect_ratio": True},
        {"pad_to_aspect_ratio": True, "width": 9, "fill_value": 0.5},
        {"pad_to_aspect_ratio": True, "height": 12, "fill_value": -2.0, "interpolation": "lanczos3"},
        {"pad_to_aspect_ratio": True, "height": 4, "width": 3},
        height=5,
        width=4,
    ),
    variants(
        "UpSampling2D",
        (4, 5, 3),
        *({"interpolation": name} for name in ("bicubic", "lanczos3", "lanczos5")),
        {"data_format": "channels_first", "interpolation": "bicubic"},
        size=(2, 3),
    ),
    variants(
        "CenterCrop",
        (8, 7, 9),
        {"height": 4, "width": 7},
        {"height": 5, "width": 4},
        {"height": 8, "width": 7},
        {"height": 12, "width": 5},
        {"height": 9, "width": 20},
        {"height": 4, "width": 3, "data_format": "channels_first"},
    ),
    variants("AutoContrast", (6, 5, 3), {}, {"value_range": (0, 1)}, {"value_range": [2.0, -1.0]}),
    variants("RandomCrop", (6, 5, 3), height=6, width=5),
]

SINGLE = [pytest.param("float32", group, id=f"{group_id(group)}-float32") for group in GROUPS]
DOUBLE = [pytest.param("float64", group, id=f"{group_id(group)}-float64") for group in GROUPS if group[0] not in NOT_IN_DOUBLE]


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize(("precision", "group"), SINGLE + DOUBLE)
def test_layer(precision: str, group: Group, keras: Any, tmp_path: Path) -> None:
    tolerance = "float32" if group[0] in SINGLE_IN_KERAS else precision
    check_group(group, precision, tolerance, tmp_path, deployed=precision == "float32")
