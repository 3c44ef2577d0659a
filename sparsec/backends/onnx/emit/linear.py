"""Exporters of the linear operators."""

from __future__ import annotations

from sparsec.backends.onnx.emit.windows import pads_attribute, placed, steps
from sparsec.backends.onnx.layout import Demand, Demands, Layout
from sparsec.backends.onnx.registry import channels_first, channels_last, exports
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.view import NodeFacts
from sparsec.ops.base import integer, ints


def _dense(facts: NodeFacts) -> Demands:
    """Any layout where it can be a convolution of width 1, which needs a stored kernel and 1 to 3 spatial axes."""
    if not facts.is_constant(1) or not 3 <= facts.type(0).rank <= 5:
        return channels_last(facts)
    return Demands((Demand.SAME, Demand.FREE, Demand.FREE)[: len(facts.node.inputs)], Demand.SAME)


@exports("dense", rule=_dense)
def emit_dense(site: Site) -> None:
    """Gemm on matrices; else MatMul where the features are stored last, Conv of width 1 where they are stored first.

    Where the input was flattened from channels-first memory, the rows of the kernel are put in that sequence.
    """
    width, units = (site.known(size) for size in site.type(1).shape)
    bias = [site.read(2)] if site.given(2) else []
    rank = site.type(0).rank
    if rank > 2 and site.layout() is Layout.FIRST:
        spatial = rank - 2
        window = {"kernel_shape": (1,) * spatial}
        kernel = site.reshaped(1, order=(1, 0), shape=(units, width, *(1,) * spatial))
        site.finish("Conv", site.read(), kernel, *bias, **window)
        return
    rows = site.builder.rows.get(site.node.inputs[0])
    if rows is None:
        kernel = site.read(1)
    else:
        last = len(rows) - 1
        kernel = site.reshaped(1, (*rows, units), (last, *range(last), last + 1), (width, units))
    if rank == 2:
        site.finish("Gemm" if bias else "MatMul", site.read(), kernel, *bias)
    elif bias:
        site.finish("Add", site.add("MatMul", site.read(), kernel), *bias)
    else:
        site.finish("MatMul", site.read(), kernel)


@exports("conv", rule=channels_first)
def emit_conv(site: Site) -> None:
    """Conv; the kernel ``[*window, in, out]`` becomes ``[out, in, *window]``."""
    *window, _, _ = (site.known(size) for size in site.type(1).shape)
    spatial = len(window)
    kernel = site.reshaped(1, order=(spatial + 1, spatial, *range(spatial)))
    bias = [site.read(2)] if site.given(2) else []
    x, padding = placed(site, site.read(), window, 0.0)
    site.finish("Conv", x, kernel, *bias, **steps(site, window), **padding, group=integer(site.attrs, "groups"))


@exports("depthwise_conv", rule=channels_first)
def emit_depthwise_conv(site: Site) -> None:
    """Conv with a group for each channel; the kernel ``[*window, C, M]`` becomes ``[C * M, 1, *window]``."""
    *window, channels, multiplier = (site.known(size) for size in site.type(1).shape)
    spatial = len(window)
    order = (spatial, spatial + 1, *range(spatial))
    kernel = site.reshaped(1, order=order, shape=(channels * multiplier, 1, *window))
    bias = [site.read(2)] if site.given(2) else []
    x, padding = placed(site, site.read(), window, 0.0)
    site.finish("Conv", x, kernel, *bias, **steps(site, window), **padding, group=channels)


@exports("conv_transpose", rule=channels_first)
def emit_conv_transpose(site: Site) -> None:
    """ConvTranspose; the kernel ``[*window, out, in]`` becomes ``[in, out, *window]``.

    Crops are its pads. A negative one is ``output_padding``, or where ONNX Runtime does not take that many, zeros that are
    appended before the bias is added.
    """
    *window, filters, _ = (site.known(size) for size in site.type(1).shape)
    spatial = len(window)
    kernel = site.reshaped(1, order=(spatial + 1, spatial, *range(spatial)))
    strides, crops = ints(site.attrs, "strides"), ints(site.attrs, "crops")
    attributes = {
        **steps(site, window),
        "pads": pads_attribute([(crops[2 * axis], max(crops[2 * axis + 1], 0)) for axis in range(spatial)]),
    }
    appended = [max(-crop, 0) for crop in crops[1::2]]
    if all(count == 0 or count < stride for count, stride in zip(appended, strides, strict=True)):
        bias = [site.read(2)] if site.given(2) else []
        site.finish("ConvTranspose", site.read(), kernel, *bias, **attributes, output_padding=tuple(appended))
        return
    y = site.add("ConvTranspose", site.read(), kernel, **attributes)
    zeros = y, site.ints([0] * (spatial + 4) + appended), site.number(0.0)
    if not site.given(2):
        site.finish("Pad", *zeros)
        return
    site.finish("Add", site.add("Pad", *zeros), site.reshaped(2, expand=(filters, *(1,) * spatial)))
