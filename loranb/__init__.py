"LoRA and QLoRA in a notebook: choose, train, and see the singular values of BA."
__version__ = "0.1.0"

# Names are imported when they are first asked for (PEP 562), so that `import loranb` costs next to nothing.
_where = dict(Recipe="recipe", RecipeError="recipe", DataError="sources", doctor="findings", Finding="findings", load_base="base", attach="base", AdapterError="factors", Factors="factors",
              singular_values="spectra", Spectra="spectra", Adapter="adapters", plan="memory", choose="fit", Run="train", preview="previews", Explorer="widgets.explorer", lr_find="finder", finetune="studio", Studio="studio")
_rooms = ("adapters", "base", "compare", "data", "evaluate", "figures", "findings", "fit", "functional", "gpus", "memory", "recipe", "rows", "shapes", "spectra", "trim")  # modules that are had without an import of their own
__all__ = sorted(_where)


def __getattr__(name):
    import importlib
    if name in _rooms: return importlib.import_module(f"loranb.{name}")
    if name not in _where: raise AttributeError(f"module 'loranb' has no attribute {name!r}")
    return getattr(importlib.import_module(f"loranb.{_where[name]}"), name)


def __dir__(): return sorted(set(globals()) | set(_where))
