"""Exporters of the elementwise operators, and of those that normalise along one axis."""

from __future__ import annotations

import math

import numpy as np

from sparsec.backends.onnx.draft import ONNX_TYPES, AttributeValue
from sparsec.backends.onnx.layout import Demands, Layout
from sparsec.backends.onnx.registry import broadcasting, exports, same_layout
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.view import NodeFacts
from sparsec.ops.base import integer, normal_axis, number
from sparsec.ops.elementwise import SELU_ALPHA, SELU_SCALE

DIRECT = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "exp": "Exp",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "log": "Log",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "sign": "Sign",
    "floor": "Floor",
    "round": "Round",
}
"""Operators of one input that ONNX has under the same meaning."""

BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "greater": "Greater",
    "equal": "Equal",
    "pow": "Pow",
    "affine": "Mul",
}
"""Operators of two inputs that ONNX has under the same meaning."""

BOOLEAN = {"add": "Or", "mul": "And", "maximum": "Or", "minimum": "And"}
"""What NumPy's arithmetic means on bool values, for which ONNX has no arithmetic."""


@exports(*DIRECT, rule=same_layout)
def emit_direct(site: Site) -> None:
    """Operators of one input and without attributes."""
    site.finish(DIRECT[site.node.op], site.read())


@exports("relu", rule=same_layout)
def emit_relu(site: Site) -> None:
    """Relu, LeakyRelu or Clip; a threshold selects, an upper end is a Min."""
    slope, threshold = number(site.attrs, "negative_slope"), number(site.attrs, "threshold")
    maximum = site.attrs["max_value"]
    x = site.read()
    attributes: dict[str, AttributeValue] = {}
    if threshold:
        limit = site.number(threshold)
        below = site.add("Mul", site.add("Sub", x, limit), site.number(slope)) if slope else site.number(0.0)
        op_type, *inputs = "Where", site.add("GreaterOrEqual", x, limit), x, below
    elif slope:
        op_type, *inputs = "LeakyRelu", x
        attributes = {"alpha": slope}
    elif isinstance(maximum, float) and maximum >= 0.0:
        site.finish("Clip", x, site.number(0.0), site.number(maximum))
        return
    else:
        op_type, *inputs = "Relu", x
    if isinstance(maximum, float):
        site.finish("Min", site.add(op_type, *inputs, **attributes), site.number(maximum))
    else:
        site.finish(op_type, *inputs, **attributes)


@exports("elu", rule=same_layout)
def emit_elu(site: Site) -> None:
    """Elu."""
    site.finish("Elu", site.read(), alpha=number(site.attrs, "alpha"))


@exports("selu", rule=same_layout)
def emit_selu(site: Site) -> None:
    """Selu, whose constants ONNX rounds to float32 where they are not given."""
    site.finish("Selu", site.read(), alpha=SELU_ALPHA, gamma=SELU_SCALE)


@exports("gelu", rule=same_layout)
def emit_gelu(site: Site) -> None:
    """Gelu from operator set 20 on; below, its definition by Erf or Tanh."""
    approximate = bool(site.attrs["approximate"])
    x = site.read()
    if site.builder.opset >= 20:
        site.finish("Gelu", x, approximate="tanh" if approximate else "none")
        return
    if approximate:
        cubic = site.add("Mul", site.add("Mul", site.add("Mul", x, x), x), site.number(0.044715))
        inner = site.add("Tanh", site.add("Mul", site.add("Add", x, cubic), site.number(math.sqrt(2 / math.pi))))
    else:
        inner = site.add("Erf", site.add("Div", x, site.number(math.sqrt(2))))
    site.finish("Mul", site.add("Mul", x, site.add("Add", inner, site.number(1.0))), site.number(0.5))


@exports("hard_sigmoid", rule=same_layout)
def emit_hard_sigmoid(site: Site) -> None:
    """HardSigmoid."""
    site.finish("HardSigmoid", site.read(), alpha=number(site.attrs, "alpha"), beta=number(site.attrs, "beta"))


@exports("clip", rule=same_layout)
def emit_clip(site: Site) -> None:
    """Clip."""
    limits = site.number(number(site.attrs, "minimum")), site.number(number(site.attrs, "maximum"))
    site.finish("Clip", site.read(), *limits)


@exports("silu", rule=same_layout)
def emit_silu(site: Site) -> None:
    """Its definition by Sigmoid."""
    x = site.read()
    site.finish("Mul", x, site.add("Sigmoid", x))


@exports("cast", rule=same_layout)
def emit_cast(site: Site) -> None:
    """Cast, which rounds and truncates as NumPy does."""
    site.finish("Cast", site.read(), to=ONNX_TYPES[str(site.attrs["dtype"])])


# --- along an axis ----------------------------------------------------------------------------------------------------


def _along_axis(facts: NodeFacts) -> Demands:
    """Any layout; runtimes are fastest along the axis that is stored last."""
    demands = same_layout(facts)
    last = normal_axis(integer(facts.attrs, "axis"), facts.result.rank) == facts.result.rank - 1
    return Demands(demands.inputs, demands.output, Layout.LAST, saving=2 if last else 0)


def _stored_axis(site: Site) -> int:
    return site.order().index(normal_axis(integer(site.attrs, "axis"), site.result.rank))


@exports("softmax", rule=_along_axis)
def emit_softmax(site: Site) -> None:
    """Softmax."""
    site.finish("Softmax", site.read(), axis=_stored_axis(site))


@exports("log_softmax", rule=_along_axis)
def emit_log_softmax(site: Site) -> None:
    """LogSoftmax."""
    site.finish("LogSoftmax", site.read(), axis=_stored_axis(site))


@exports("sparsemax", rule=_along_axis)
def emit_sparsemax(site: Site) -> None:
    """Its algorithm: sort, find the support, subtract the support's threshold."""
    axis = _stored_axis(site)
    length = site.known(site.sizes()[axis])
    x = site.read()
    aligned = (length, *(1,) * (site.result.rank - 1 - axis))
    positions = site.array(np.arange(1, length + 1, dtype=site.type(0).dtype).reshape(aligned), "positions")
    ranked, places = (site.builder.fresh(f"{site.node.name}/{part}") for part in ("ranked", "places"))
    site.builder.add(
        "TopK", f"{site.node.name}/TopK", (x, site.ints([length])), (ranked, places), {"axis": axis}, site.node.layer
    )
    sums = site.add("CumSum", ranked, site.array(np.array(axis, np.int64)))
    candidate = site.add("Add", site.add("Mul", positions, ranked), site.number(1.0))
    support = site.add("Cast", site.add("Greater", candidate, sums), to=ONNX_TYPES[site.type(0).dtype])
    axes = site.ints([axis])
    excess = site.add("Sub", site.add("ReduceSum", site.add("Mul", sums, support), axes), site.number(1.0))
    threshold = site.add("Div", excess, site.add("ReduceSum", support, axes))
    site.finish("Relu", site.add("Sub", x, threshold))


# --- several inputs ---------------------------------------------------------------------------------------------------


@exports("add", "sub", "mul", "div", "maximum", "minimum", "greater", "equal", "pow", rule=broadcasting)
def emit_binary(site: Site) -> None:
    """Operators of two values that broadcast."""
    a, b = site.operand(0), site.operand(1)
    if site.type(0).dtype != "bool" or site.node.op == "equal":
        site.finish(BINARY[site.node.op], a, b)
    elif site.node.op in BOOLEAN:
        site.finish(BOOLEAN[site.node.op], a, b)
    elif site.node.op == "greater":
        site.finish("And", a, site.add("Not", b))
    else:
        raise site.refusal("it has no meaning on bool values")


@exports("mod", rule=broadcasting)
def emit_mod(site: Site) -> None:
    """Mod; of floating-point values ONNX has only the remainder with the sign of the dividend."""
    a, b = site.operand(0), site.operand(1)
    if not site.type(0).dtype.startswith("float"):
        site.finish("Mod", a, b)
        return
    rest, zero = site.add("Mod", a, b, fmod=1), site.number(0.0)
    signs_differ = site.add("Less", site.add("Mul", site.add("Sign", rest), site.add("Sign", b)), zero)
    site.finish("Where", signs_differ, site.add("Add", rest, b), rest)


@exports("where", rule=broadcasting)
def emit_where(site: Site) -> None:
    """Where; of bool values, for which ONNX Runtime has none, by Or and And."""
    condition, a, b = (site.operand(index) for index in range(3))
    if site.result.dtype == "bool":
        site.finish("Or", site.add("And", condition, a), site.add("And", site.add("Not", condition), b))
    else:
        site.finish("Where", condition, a, b)


@exports("prelu", rule=broadcasting)
def emit_prelu(site: Site) -> None:
    """PRelu."""
    site.finish("PRelu", site.operand(0), site.operand(1))


@exports("affine", rule=broadcasting)
def emit_affine(site: Site) -> None:
    """Mul, then Add where there is a shift."""
    if not site.given(2):
        site.finish("Mul", site.operand(0), site.operand(1))
        return
    site.finish("Add", site.add("Mul", site.operand(0), site.operand(1)), site.operand(2))
