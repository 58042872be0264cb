"""Triton's interpreter, quick enough for tests: the same results, without two costs that grow with every call.

It patches `triton.language` anew at every call of a device function, and computes an exclusive or over an axis
in a Python loop over elements, which sorting does at every step.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np


def quicken() -> None:
    """Patch the interpreter of this process, once."""
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_quickened"):
        interpreter._quickened = True
        _vectorise_xor(interpreter)
        _patch_once_a_launch(interpreter)


def _vectorise_xor(interpreter: Any) -> None:
    import triton.language as tl

    slow = interpreter.ReduceOps.apply_impl

    def apply_impl(self: Any, values: Any) -> Any:
        if self.combine_fn is not tl.standard._xor_combine:
            return slow(self, values)
        data = np.bitwise_xor.reduce(values[0].handle.data, axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(data, values[0].dtype)

    interpreter.ReduceOps.apply_impl = apply_impl


def _patch_once_a_launch(interpreter: Any) -> None:
    """Later calls of a launch find the languages that they see patched already, until the launch restores them."""
    patch, seen = interpreter._patch_lang, set()

    class Scope(interpreter._LangPatchScope):
        def restore(self) -> None:
            seen.clear()
            super().restore()

    def patch_once(fn: Any) -> Any:
        modules = {id(value) for value in fn.__globals__.values() if inspect.ismodule(value)}
        key = tuple(id(lang) in modules for lang in (interpreter.tl, interpreter.tl.core))
        if key in seen:
            return Scope()
        seen.add(key)
        scope = Scope()
        scope._changes = patch(fn)._changes
        return scope

    interpreter._patch_lang = patch_once
