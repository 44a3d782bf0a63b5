"""Hooks into other libraries. Nothing here imports them: a hook runs when, and only if, the user does."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

TRANSFORMERS_REGISTRY = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Makes `AutoModel*.from_pretrained` understand our checkpoints, now or as soon as transformers is imported.

    Importing transformers' quantizers takes longer than importing torch, which a user of the bare layer should not
    pay for. So unless they are loaded already, a finder waits for them on `sys.meta_path`, and leaves once they come.
    """
    if TRANSFORMERS_REGISTRY in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(TRANSFORMERS_REGISTRY, _register))


def _register() -> None:
    try:
        importlib.import_module("requant_kernels.integrations.transformers")
    except ImportError as error:
        warnings.warn(f"this version of transformers cannot load requant checkpoints: {error}", stacklevel=2)


class _AfterImport(MetaPathFinder):
    """Calls `action` right after the module `name` has been executed, once."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_then_act(module: ModuleType) -> None:
                execute(module)
                self.action()

            spec.loader.exec_module = execute_then_act  # type: ignore[method-assign]
        return spec
