"""Recurrent layers: a cell, or several on top of each other, run over a sequence.

Keras puts the outputs of a layer that goes backwards in the order in which they were computed; the operators put them at the
steps that they belong to. So they are turned around behind the operator, unless a Bidirectional turns them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparsec.frontends.layer import Layer, Value, reads, tensors
from sparsec.frontends.layers.activations import HARD_SIGMOID, LEAKY_LAYER_SLOPE, LEAKY_SLOPE, stated_activation
from sparsec.frontends.layers.convolutional import Window, read_padding
from sparsec.frontends.layers.formats import is_channels_first
from sparsec.frontends.layers.masks import any_channel
from sparsec.frontends.options import Options
from sparsec.frontends.source import INNER
from sparsec.frontends.tree import numbered_names
from sparsec.ops import TO_THE_END, TO_THE_START
from sparsec.ops.activations import CELL_ACTIVATIONS

CELLS = {
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell"), "simple_rnn"),
    **dict.fromkeys(("LSTM", "LSTMCell"), "lstm"),
    **dict.fromkeys(("GRU", "GRUCell"), "gru"),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "conv_lstm"),
}
"""The operator of every class that has a cell, or is one."""

STATES = {"simple_rnn": ("h",), "gru": ("h",), "lstm": ("h", "c"), "conv_lstm": ("h", "c")}
GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4, "conv_lstm": 4}

RECURRENT = ("GRU", "LSTM", "RNN", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


# --- cells -------------------------------------------------------------------------------------------------------------


def _relu_parameters(layer: Layer, parameters: Options) -> tuple[str, float, float]:
    slope = parameters.number("negative_slope", parameters.number("alpha", 0.0))
    ceiling = parameters.option("max_value")
    if parameters.number("threshold", 0.0) != 0 or (ceiling is not None and slope != 0):
        parameters.refuse("a threshold, or a slope together with a maximum, is not read inside a recurrent layer")
    return ("relu", slope, 0.0) if ceiling is None else ("clip", 0.0, parameters.number("max_value", 0.0))


def _leaky_parameters(default: float, parameters: Options) -> tuple[str, float, float]:
    return "relu", parameters.number("negative_slope", parameters.number("alpha", default)), 0.0


def _cell_activation(layer: Layer, option: str, default: str) -> dict[str, object]:
    """The attributes of a recurrent operator for one of its activations."""
    name, parameters = stated_activation(layer, layer.option(option, default))
    chosen: tuple[str, float, float]
    match name:
        case "relu" | "ReLU":
            chosen = _relu_parameters(layer, parameters)
        case "leaky_relu":
            chosen = _leaky_parameters(LEAKY_SLOPE, parameters)
        case "LeakyReLU":
            chosen = _leaky_parameters(LEAKY_LAYER_SLOPE, parameters)
        case "hard_sigmoid":
            chosen = "hard_sigmoid", *HARD_SIGMOID[layer.saved_by.generation]
        case "hard_silu" | "hard_swish":
            chosen = "hard_silu", *HARD_SIGMOID[layer.saved_by.generation]
        case "elu" | "ELU" | "celu":
            chosen = name.lower(), parameters.number("alpha", 1.0), 0.0
        case "gelu":
            chosen = "gelu_tanh" if parameters.flag("approximate", False) else "gelu", 0.0, 0.0
        case "soft_shrink" | "hard_shrink":
            chosen = name, parameters.number("threshold", 0.5), 0.0
        case "threshold":
            below = parameters.number("default_value", parameters.number("value", 0.0))
            chosen = name, parameters.number("threshold", 20.0), below
        case "squareplus":
            chosen = name, parameters.number("b", 4.0), 0.0
        case "softmax" | "Softmax" | "log_softmax" | "sparsemax" if parameters.option("axis", -1) not in (-1, 1, [-1], [1]):
            parameters.refuse("another axis than the units is not read inside a recurrent layer")
        case _:
            known = {
                "exponential": "exp",
                "hard_tanh": "clip",
                "relu6": "clip",
                "sparse_sigmoid": "hard_sigmoid",
                "swish": "silu",
            }
            numbers = {"hard_tanh": (-1.0, 1.0), "relu6": (0.0, 6.0), "sparse_sigmoid": (0.5, 0.5)}.get(name, (0.0, 0.0))
            chosen = known.get(name, name.lower()), *numbers
    if chosen[0] not in CELL_ACTIVATIONS:
        layer.refuse(f"the activation {name!r} is not read inside a recurrent layer")
    prefix = option.removesuffix("activation")
    return {option: chosen[0], f"{prefix}alpha": chosen[1], f"{prefix}beta": chosen[2]}


def _activations(cell: Layer, op: str) -> dict[str, object]:
    attrs = _cell_activation(cell, "activation", "tanh")
    if op == "simple_rnn":
        return attrs
    default = "hard_sigmoid" if cell.saved_by.generation == 2 else "sigmoid"
    return {**attrs, **_cell_activation(cell, "recurrent_activation", default)}


@dataclass(frozen=True)
class _Order:
    """In which order steps are taken, and what stands at those that do not count."""

    reverse: bool
    zero_masked: bool


def _run(cell: Layer, x: Value, mask: Value | None, states: Sequence[Value | None], order: _Order) -> tuple[Value, ...]:
    """Run one cell over a sequence: its outputs, in the order of their steps, and its last states."""
    op = CELLS[cell.class_name]
    attrs: dict[str, object] = {**_activations(cell, op), "reverse": order.reverse, "zero_masked": order.zero_masked}
    channels, gates = cell.channels(x), GATES[op]
    if op == "conv_lstm":
        units, rank = cell.integer("filters", least=1), x.rank - 3
        window = Window(
            cell.integers("kernel_size", rank), cell.integers("strides", rank, 1), cell.integers("dilation_rate", rank, 1)
        )
        attrs |= window.attributes(read_padding(cell, window))
        kernel = cell.weight("kernel", (*window.size, channels, gates * units))
        recurrent = cell.weight("recurrent_kernel", (*window.size, units, gates * units))
    else:
        units = cell.integer("units", least=1)
        kernel = cell.weight("kernel", (channels, gates * units))
        recurrent = cell.weight("recurrent_kernel", (units, gates * units))
    bias_shape: tuple[int, ...] = (gates * units,)
    if op == "gru":
        attrs["reset_after"] = cell.flag("reset_after", cell.saved_by.generation == 3)
        bias_shape = (2, *bias_shape) if attrs["reset_after"] else bias_shape
    bias = cell.weight("bias", bias_shape) if cell.flag("use_bias", True) else None
    return cell.emit_all(op, x, kernel, bias, recurrent, mask, *states, further=STATES[op], **attrs)


def _cells(layer: Layer) -> list[Layer]:
    """The cells of a recurrent layer, those further down first."""
    if layer.class_name != "RNN":
        return [layer.part("cell")]
    cell = layer.part("cell", serialized=layer.option("cell"))
    if cell.class_name != "StackedRNNCells":
        return [_checked(cell)]
    if cell.flag("reverse_state_order", False):
        cell.refuse("reverse_state_order = True is not read")
    inner = cell.option("cells")
    if not isinstance(inner, list) or not inner:
        cell.refuse("it holds no cells")
    names = numbered_names([str(item.get("class_name")) if isinstance(item, dict) else "" for item in inner])
    return [_checked(cell.part(f"cells/{name}", serialized=item)) for name, item in zip(names, inner, strict=True)]


def _checked(cell: Layer) -> Layer:
    if cell.entry.is_custom or not cell.class_name.endswith("Cell") or cell.class_name not in CELLS:
        cell.refuse("is no cell of Keras that sparsec reads: LSTMCell, GRUCell, SimpleRNNCell, or StackedRNNCells of them")
    return cell


# --- layers ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """What a recurrent layer computes: its output, and the states after its last step."""

    output: Value
    states: tuple[Value, ...]


def _sequence(
    layer: Layer, x: Value, mask: Value | None, states: Sequence[Value], zero_masked: bool, turned_back: bool
) -> _Outcome:
    """Run a recurrent layer.

    Args:
        layer: the layer, or one inside a Bidirectional.
        x: the sequence.
        mask: which steps count.
        states: those before the first step; none for zeros.
        zero_masked: whether the output is zero where a step does not count.
        turned_back: whether outputs stay at their steps although the layer goes backwards.
    """
    for option in ("stateful", "time_major"):
        if layer.flag(option, False):
            layer.refuse(f"{option} = True is not read; build the model without it")
    if mask is not None and mask.rank != 2:
        layer.refuse(f"its mask {mask.type} is not one of steps")
    cells = _cells(layer)
    counts = [len(STATES[CELLS[cell.class_name]]) for cell in cells]
    if states and len(states) != sum(counts):
        layer.refuse(f"is given {len(states)} initial states and has {sum(counts)}")
    order = _Order(layer.flag("go_backwards", False), zero_masked)
    left, last = list(states), []
    for cell, count in zip(cells, counts, strict=True):
        given, left = left[:count], left[count:]
        x, *after = _run(cell, x, mask, given or [None] * count, order)
        last.append(after)
    ended = tuple(state for after in last for state in after)
    if layer.flag("return_sequences", False):
        backwards = order.reverse and not turned_back
        output = layer.emit("slice", x, axis=1, start=-1, stop=TO_THE_START, step=-1) if backwards else x
        return _Outcome(output, ended)
    if mask is None or not (states or zero_masked):
        return _Outcome(last[-1][0], ended)
    # The state of a sample of which no step counts is the one that it began with, its output is not.
    place = (0, 1) if order.reverse else (-1, TO_THE_END)
    step = layer.emit("slice", x, axis=1, start=place[0], stop=place[1])
    return _Outcome(layer.emit("reshape", step, shape=(0, *(layer.size(x, axis) for axis in range(2, x.rank)))), ended)


def _initial_states(layer: Layer) -> list[Value]:
    """The states that a call gives: as an argument of their own, or behind the sequence."""
    if layer.operand(len(layer.inputs), "constants") is not None:
        layer.refuse("is called with constants, which is not read")
    given = [layer.cast(state, layer.dtype) for state in _states_beside(layer)]
    return given or layer.inputs[1:]


def _states_beside(layer: Layer) -> list[Value]:
    """The states that a call gives as an argument of their own."""
    return [*tensors(layer.operand(99, "initial_state"))]


def _counted(layer: Layer) -> Value | None:
    """The mask by which steps count: Keras 3 hands that of the sequence to a call that has no other tensors, alone."""
    return layer.given_mask if layer.saved_by.generation == 3 and _states_beside(layer) else layer.mask


def _channels_last(layer: Layer, value: Value, leading: int) -> Value:
    """A value of a layer that may be channels-first, with the channels last behind ``leading`` axes and space."""
    if not (layer.class_name.startswith("ConvLSTM") and is_channels_first(layer)):
        return value
    space = range(leading + 1, value.rank)
    return layer.emit("transpose", value, permutation=(*range(leading), *space, leading))


def _channels_first(layer: Layer, value: Value, leading: int) -> Value:
    """The inverse of :func:`_channels_last`."""
    if not (layer.class_name.startswith("ConvLSTM") and is_channels_first(layer)):
        return value
    return layer.emit("transpose", value, permutation=(*range(leading), value.rank - 1, *range(leading, value.rank - 1)))


@reads(*RECURRENT)
def recurrent(layer: Layer) -> tuple[Value, ...]:
    """LSTM, GRU, SimpleRNN, RNN over stock cells, ConvLSTM1D, 2D and 3D."""
    x, mask = layer.cast(layer.inputs[0], layer.dtype), _counted(layer)
    zero_masked = layer.flag("zero_output_for_mask", False)
    states = [_channels_last(layer, state, 1) for state in _initial_states(layer)]
    outcome = _sequence(layer, _channels_last(layer, x, 2), mask, states, zero_masked, turned_back=False)
    sequences = layer.flag("return_sequences", False)
    output = _channels_first(layer, outcome.output, 2 if sequences else 1)
    output = layer.masked(output, layer.mask if sequences else None)
    if not layer.flag("return_state", False):
        return (output,)
    return (output, *(_channels_first(layer, state, 1) for state in outcome.states))


@reads("GRUCell", "LSTMCell", "SimpleRNNCell")
def single_step(layer: Layer) -> tuple[Value, ...]:
    """A cell outside of an RNN: one step from the states that its call gives."""
    x, *states = layer.inputs
    if len(states) != len(STATES[CELLS[layer.class_name]]):
        layer.refuse(f"is given {len(states)} states where {len(STATES[CELLS[layer.class_name]])} were expected")
    step = layer.emit("reshape", layer.cast(x, layer.dtype), shape=(0, 1, layer.channels(x)))
    _, *after = _run(layer, step, None, states, _Order(reverse=False, zero_masked=False))
    return (after[0], *after)


@reads("Bidirectional")
def bidirectional(layer: Layer) -> tuple[Value, ...]:
    """Bidirectional: a layer and its like, which goes the other way; their outputs merged step by step."""
    forward, backward = _directions(layer)
    x, mask, states = layer.cast(layer.inputs[0], layer.dtype), _counted(layer), _initial_states(layer)
    half, sequences = len(states) // 2, forward.flag("return_sequences", False)
    if len(states) % 2:
        layer.refuse(f"is given {len(states)} initial states, which are not as many for both directions")
    one, other = (
        _sequence(inner, x, mask, given, zero_masked=sequences, turned_back=turned_back)
        for inner, given, turned_back in ((forward, states[:half], False), (backward, states[half:], True))
    )
    outputs = _merged(layer, one.output, other.output)
    masked = tuple(layer.masked(output, layer.mask if sequences else None) for output in outputs)
    return (*masked, *one.states, *other.states) if forward.flag("return_state", False) else masked


def _directions(layer: Layer) -> tuple[Layer, Layer]:
    """The two layers; Keras 2 states the one that goes backwards only where it is not the mirror of the other."""
    forward: Any = layer.option("layer")
    backward = layer.option("backward_layer")
    first = layer.part("forward_layer", serialized=forward)
    if backward is None:
        mirrored = not first.flag("go_backwards", False)
        backward = {**forward, "config": {**forward["config"], "go_backwards": mirrored}}
    second = layer.part("backward_layer", serialized=backward)
    for inner in (first, second):
        if inner.class_name not in RECURRENT or inner.class_name.startswith("ConvLSTM"):
            inner.refuse("is not read inside a Bidirectional; sparsec reads LSTM, GRU, SimpleRNN and RNN there")
    if first.flag("go_backwards", False) or not second.flag("go_backwards", False):
        layer.refuse("its forward layer goes backwards, or its backward layer does not, which is not read")
    for option in ("return_sequences", "return_state"):
        if first.flag(option, False) != second.flag(option, False):
            layer.refuse(f"{option} of its two directions differs")
    return first, second


MERGES = {"sum": "add", "ave": "add", "mul": "mul"}
"""The operators that merge two directions element by element."""


def _merged(layer: Layer, a: Value, b: Value) -> tuple[Value, ...]:
    mode = layer.config.get("merge_mode", "concat")
    if mode is None:
        return (a, b)
    if mode == "concat":
        return (layer.emit("concat", a, b, axis=-1),)
    if mode not in MERGES:
        layer.refuse(f"merge_mode = {mode!r} is not read")
    merged = layer.emit(MERGES[mode], a, b)
    return (layer.emit("mul", merged, layer.like(merged, 0.5)) if mode == "ave" else merged,)


# --- layers applied to every step --------------------------------------------------------------------------------------

EVERYWHERE = frozenset({"Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout"})
"""Layers that do to each position of a value of any rank what they do to a single one."""


@reads("TimeDistributed")
def time_distributed(layer: Layer) -> Value:
    """TimeDistributed: the steps become samples, for layers that would not do the same to every step by themselves."""
    x, mask = layer.input, layer.mask

    def inner(*args: Value) -> Layer:
        return layer.part(INNER, serialized=layer.option("layer"), args=args)

    if _works_everywhere(inner()):
        (y,) = inner(layer.masked(x, None)).outputs()
        return layer.masked(y, mask)
    inner_mask = None if mask is None or mask.rank < 3 else layer.emit("reshape", mask, shape=_folded(layer, mask))
    outputs = inner(layer.masked(layer.emit("reshape", x, shape=_folded(layer, x)), inner_mask)).outputs()
    if len(outputs) != 1:
        layer.refuse(f"its layer has {len(outputs)} outputs where one was expected")
    (y,) = outputs
    sizes = [layer.size(y, axis) for axis in range(1, y.rank)]
    steps = layer.size(x, 1)
    unfolded = layer.emit("reshape", y, shape=(-1, steps, *sizes))
    return layer.masked(unfolded, mask if layer.saved_by.generation == 3 else _distributed_mask(layer, steps, mask, y.mask))


def _distributed_mask(layer: Layer, steps: int, mask: Value | None, inner: Value | None) -> Value | None:
    """The mask of a TimeDistributed in Keras 2: that of its layer, or where it has none, whether anything of a step counts."""
    if inner is not None:
        sizes = [layer.size(inner, axis) for axis in range(1, inner.rank)]
        return layer.emit("reshape", inner, shape=(-1, steps, *sizes))
    while mask is not None and mask.rank > 2:
        mask = any_channel(layer, mask)
    return mask


def _works_everywhere(inner: Layer) -> bool:
    stated = inner.option("activation")
    # An axis that an activation names would be shifted by the steps.
    return inner.class_name in EVERYWHERE and not inner.entry.is_custom and not isinstance(stated, dict) and stated != "glu"


def _folded(layer: Layer, value: Value) -> tuple[int, ...]:
    return (-1, *(layer.size(value, axis) for axis in range(2, value.rank)))
