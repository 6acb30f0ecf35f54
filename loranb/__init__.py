"LoRA and QLoRA in a notebook: choose, train, and see the singular values of BA."
__version__ = "0.1.0"

# Names are imported when they are first asked for (PEP 562), so that `import loranb` costs next to nothing.
def hand_on(package, **modules):
    "`__getattr__`, `__dir__` and `__all__` of a package, from its modules and the names that each of them is asked for"
    from importlib import import_module
    home = {name: module for module, names in modules.items() for name in names.split()}
    def find(name):
        if name not in home: raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{home[name].replace('__', '.')}")
        return module if home[name] == name else getattr(module, name)
    names = sorted(name for name, module in home.items() if name != module)
    return find, lambda: sorted(home), names

ROOMS = "core models data memory spectra evaluate adapters runs train widgets".split()

__getattr__, __dir__, __all__ = hand_on(__name__, **{room: room for room in ROOMS} | dict(
    core="core Recipe RecipeError", models="models load_base attach", data="data DataError Finding doctor preview", memory="memory plan choose",
    spectra="spectra AdapterError Factors Spectra singular_values", adapters="adapters Adapter", train="train Run lr_find",
    widgets="widgets Explorer Studio finetune"))
