"""Spectrograms of audio: short-time Fourier transforms are convolutions with sines and cosines."""

from __future__ import annotations

from math import log10

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.convolutional import Window, read_padding
from sparsec.frontends.layers.formats import is_channels_first, to_channels_first, to_channels_last
from sparsec.ir import Array
from sparsec.ops import TO_THE_START

EPSILON = 1e-7
"""Keras' smallest number: STFTSpectrogram takes no root and no logarithm of less."""

MEL_HIGH_FREQUENCY_Q, MEL_BREAK_FREQUENCY = 1127.0, 700.0
"""``mel = 1127 ln(1 + hertz / 700)``, as the Hidden Markov Model Toolkit has it."""


@reads("STFTSpectrogram")
def stft_spectrogram(layer: Layer) -> Value:
    """STFTSpectrogram: its kernels are variables, and every channel meets all of them."""
    mode = layer.text("mode", "log")
    if mode == "angle":
        layer.refuse("mode = 'angle' needs the arc tangent of two values, for which there is no operator")
    if mode not in ("log", "magnitude", "psd", "real", "imag", "stft"):
        layer.refuse(f"mode = {mode!r}")
    x = layer.float_input
    if x.rank != 3:
        layer.refuse(f"its input has {x.rank} axes, 3 were expected")
    if is_channels_first(layer):
        x = to_channels_last(layer, x)
    channels = layer.channels(x)
    real = _transformed(layer, x, "real_kernel") if mode != "imag" else None
    imag = _transformed(layer, x, "imag_kernel") if mode != "real" else None
    if real is None or imag is None:
        (y,) = (part for part in (real, imag) if part is not None)
    elif mode == "stft":
        y = layer.emit("concat", _by_channel(layer, real, channels), _by_channel(layer, imag, channels), axis=-1)
        y = layer.emit("reshape", y, shape=(0, 0, channels * layer.channels(y)))
    else:
        y = _power(layer, real, imag, mode, channels)
    return _arranged(layer, y, channels)


def _transformed(layer: Layer, x: Value, kernel: str) -> Value:
    """``[N, frames, channels * frequencies]``."""
    length, given = layer.integer("frame_length", 256, least=1), layer.option("fft_length")
    fft_length = 1 << (length - 1).bit_length() if given is None else layer.integer("fft_length", least=length)
    step = layer.integer("frame_step", max(length // 2, 1), least=1)
    weight = layer.weight(kernel, (length, 1, fft_length // 2 + 1))
    window = Window((length,), (step,), (1,))
    attributes = window.attributes(read_padding(layer, window))
    channels = layer.channels(x)
    if channels == 1:
        return layer.emit("conv", x, weight, **attributes)
    return layer.emit("depthwise_conv", x, layer.emit("tile", weight, repeats=(1, channels, 1)), **attributes)


def _power(layer: Layer, real: Value, imag: Value, mode: str, channels: int) -> Value:
    power = layer.emit("add", layer.emit("mul", real, real), layer.emit("mul", imag, imag))
    if mode == "psd":
        # Every frequency stands for its negative too, but for the first and the last.
        factors = np.full(layer.channels(power) // channels, 2.0)
        factors[[0, -1]] = 1.0
        return layer.emit("affine", power, layer.constant("sides", np.tile(factors, channels), power.type.dtype))
    least = layer.like(power, EPSILON)
    magnitude = layer.emit("sqrt", layer.emit("maximum", power, least))
    return magnitude if mode == "magnitude" else layer.emit("log", layer.emit("maximum", magnitude, least))


def _by_channel(layer: Layer, x: Value, channels: int) -> Value:
    """``[N, frames, channels, frequencies]``."""
    return layer.emit("reshape", x, shape=(0, 0, channels, layer.channels(x) // channels))


def _arranged(layer: Layer, y: Value, channels: int) -> Value:
    """The result in the data format of the layer, frequencies and channels on one axis or on two."""
    first = is_channels_first(layer)
    if not layer.flag("expand_dims", False):
        return to_channels_first(layer, y) if first else y
    y = _by_channel(layer, y, channels)
    return layer.emit("transpose", y, permutation=(0, 2, 1, 3) if first else (0, 1, 3, 2))


# --- mel ---------------------------------------------------------------------------------------------------------------


@reads("MelSpectrogram")
def mel_spectrogram(layer: Layer) -> Value:
    """MelSpectrogram: windowed transforms, their powers gathered in bands, in decibels."""
    x = layer.float_input
    if x.rank != 2:
        layer.refuse(f"its input has {x.rank} axes; a batch of signals, 2 axes, was expected")
    fft_length = layer.integer("fft_length", 2048, least=2)
    bins = fft_length // 2 + 1
    kernel = layer.constant("transform", _transform(layer, fft_length), x.type.dtype)
    window = Window((fft_length,), (layer.integer("sequence_stride", 512, least=1),), (1,))
    parts = layer.emit("conv", _reflected(layer, x, fft_length // 2), kernel, **window.attributes(("explicit", (0, 0))))
    squares = layer.emit("mul", parts, parts)
    real = layer.emit("slice", squares, axis=-1, start=0, stop=bins)
    power = layer.emit("add", real, layer.emit("slice", squares, axis=-1, start=bins, stop=2 * bins))
    exponent = layer.number("mag_exp", 2.0)
    if exponent != 2.0:
        power = layer.emit("pow", power, layer.like(power, exponent / 2.0))
    y = layer.emit("dense", power, layer.constant("bands", _bands(layer, bins), x.type.dtype))
    if layer.flag("power_to_db", True):
        y = _decibels(layer, y)
    return layer.emit("transpose", y, permutation=(0, 2, 1))


def _reflected(layer: Layer, x: Value, count: int) -> Value:
    """``[N, count + time + count, 1]``: the signal mirrored at its first and at its last sample."""
    size = x.shape[1]
    if isinstance(size, int) and size <= count:
        layer.refuse(f"mirrors {count} samples of a signal of {size}; use a longer signal or a smaller fft_length")
    before = layer.emit("slice", x, axis=1, start=1, stop=count + 1)
    before = layer.emit("slice", before, axis=1, start=-1, stop=TO_THE_START, step=-1)
    after = layer.emit("slice", x, axis=1, start=-2, stop=-2 - count, step=-1)
    return layer.emit("reshape", layer.emit("concat", before, x, after, axis=1), shape=(0, -1, 1))


def _transform(layer: Layer, fft_length: int) -> Array:
    """The kernel ``[fft_length, 1, 2 * bins]`` of the real parts, then the imaginary ones, of windowed frames."""
    length = layer.integer("sequence_length", fft_length, least=1)
    if length > fft_length:
        layer.refuse(f"sequence_length = {length} is more than fft_length = {fft_length}")
    before = (fft_length - length) // 2
    window = np.pad(_window(layer, length), (before, fft_length - length - before))
    angles = 2.0 * np.pi * (np.arange(fft_length)[:, None] * np.arange(fft_length // 2 + 1) % fft_length) / fft_length
    return np.asarray(window[:, None, None] * np.concatenate([np.cos(angles), -np.sin(angles)], axis=1)[:, None])


def _window(layer: Layer, length: int) -> Array:
    stated = layer.option("window")
    if stated is None:
        return np.ones(length)
    if isinstance(stated, list | tuple):
        if len(stated) != length:
            layer.refuse(f"window holds {len(stated)} numbers, {length} were expected")
        return np.asarray(stated, np.float64)
    offsets = {"hann": 0.5, "hamming": 0.54}
    if stated not in offsets:
        layer.refuse(f"window = {stated!r} is not read; sparsec reads {', '.join(offsets)} and numbers")
    # The periodic form, but of an odd length TensorFlow makes the symmetric one.
    period = max(length - length % 2, 1)
    return np.asarray(offsets[stated] - (1.0 - offsets[stated]) * np.cos(2.0 * np.pi * np.arange(length) / period))


def _bands(layer: Layer, bins: int) -> Array:
    """The weights ``[bins, bands]``: triangles on the mel scale, from the centre of the band before to that of the next."""
    rate, count = layer.number("sampling_rate", 16000), layer.integer("num_mel_bins", 128, least=1)
    highest = layer.number("max_freq", 0.0) or float(int(rate / 2))

    def mel(hertz: Array) -> Array:
        return np.asarray(MEL_HIGH_FREQUENCY_Q * np.log1p(hertz / MEL_BREAK_FREQUENCY))

    ends = mel(np.asarray([layer.number("min_freq", 20.0), highest]))
    edges = np.linspace(ends[0], ends[1], count + 2)
    place = mel(np.linspace(0.0, rate / 2.0, bins))[:, None]
    rising = (place - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - place) / (edges[2:] - edges[1:-1])
    weights = np.maximum(np.minimum(rising, falling), 0.0)
    weights[0] = 0.0
    return np.asarray(weights)


def _decibels(layer: Layer, power: Value) -> Value:
    """Ten times the logarithm, no more than ``top_db`` below the greatest value of the whole batch."""
    least = layer.number("min_power", 1e-10)
    reference = 10.0 * log10(max(abs(layer.number("ref_power", 1.0)), least))
    logarithm = layer.emit("log", layer.emit("maximum", power, layer.like(power, least)))
    y = layer.emit("mul", logarithm, layer.like(power, 10.0 / np.log(10.0)))
    if reference:
        y = layer.emit("sub", y, layer.like(y, reference))
    greatest = layer.emit("reduce_max", y, axes=(0, 1, 2), keepdims=True)
    return layer.emit("maximum", y, layer.emit("sub", greatest, layer.like(y, layer.number("top_db", 80.0))))
