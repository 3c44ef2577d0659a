"""JSON as bundles use it: compact ASCII out; strict in, within limits."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from sparsec.bundle.limits import MAX_JSON_DEPTH
from sparsec.errors import FormatError


def compact(value: Any) -> str:
    """``value`` as ASCII JSON without spaces, keys in their order.

    Raises:
        TypeError: a value is none of JSON's.
        ValueError: a float is not finite, or a container holds itself.
    """
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def parse(data: bytes) -> Any:
    """The value of JSON text.

    Raises:
        FormatError: it is not UTF-8, not JSON, repeats a key in an object, holds NaN or an infinity, or is nested too deeply.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise FormatError(f"the JSON text is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"the JSON text is malformed: {error.msg} at character {error.pos}") from None
    except (RecursionError, ValueError) as error:
        # ValueError beyond JSONDecodeError: an integer of more digits than Python converts.
        raise FormatError(f"the JSON text breaks a limit: {error}") from None
    if _depth(value) > MAX_JSON_DEPTH:
        raise FormatError(f"the JSON text is nested more than {MAX_JSON_DEPTH} deep")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise FormatError(f"the JSON key {repeated!r} stands twice in one object")
    return result


def _refuse(constant: str) -> NoReturn:
    raise FormatError(f"the JSON text holds {constant}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise FormatError(f"the JSON number {text} is too large")
    return value


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    return deepest
