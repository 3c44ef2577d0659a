"""Layer classes of Keras that are refused whatever their options, each with its reason.

The reasons stand in the front-end's message, ``layer 'name' is a Hashing: it ...``, and in ``docs/layers.md``.
"""

from __future__ import annotations

_FOREIGN = "which holds no layers of Keras: rebuild that part with layers of Keras"
_STRINGS = "and no value of a graph is a string: look the tokens up before the model, and let the model take integers"
_HASHES = "by FarmHash or SipHash, for which there is no operator: hash before the model, and let the model take integers"

REFUSED = {
    "FlaxLayer": f"calls a module of Flax, {_FOREIGN}",
    "HashedCrossing": f"hashes crossed features {_HASHES}",
    "Hashing": f"hashes its input {_HASHES}",
    "JaxLayer": f"calls a function of JAX, {_FOREIGN}",
    "Lambda": ("holds Python code, which sparsec never executes; replace it by layers or keras.ops and save the model again"),
    "Layer": "is the base class of layers and computes nothing",
    "StringLookup": f"looks strings up, {_STRINGS}",
    "TFSMLayer": f"runs a TensorFlow SavedModel, {_FOREIGN}",
    "TextVectorization": f"splits strings into tokens, {_STRINGS}",
    "TorchModuleWrapper": f"calls a module of PyTorch, {_FOREIGN}",
    "Wrapper": "is the base class of layers around a layer and computes nothing",
}
"""What a layer of each class does that cannot be read."""
