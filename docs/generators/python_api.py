"""The reference of the Python package: what `import fedmedclip` offers, and every module by its room."""

import fedmedclip
from docs.generators.rooms import modules, purpose_of

PAGE = "reference/python.md"
FOLDER = "reference/modules"


def python_page() -> str:
    """Return the page of the names in `fedmedclip.__all__`, with a list of all packages below it."""
    parts = ["# Python", fedmedclip.__doc__ or ""]
    names = public_names()
    if not names:
        parts.append(
            "This version offers no functions at the top of the package: the [commands](commands.md) are its "
            "interface."
        )
    for name, path in names.items():
        parts.append(f"::: {path}\n    options:\n{_as_heading(f'fedmedclip.{name}')}")
    parts.append("## Modules")
    parts.append(
        "All modules can be imported and are documented, but those below may change with any version."
    )
    files = modules()
    parts.append(
        "\n".join(
            f"- [`{package}`](modules/{package}.md): {purpose_of(files[package])}" for package in packages()
        )
    )
    return "\n\n".join(parts) + "\n"


def public_names() -> dict[str, str]:
    """Return the names that the package offers, with the path under which each is defined."""
    found = {}
    for name in getattr(fedmedclip, "__all__", ()):
        if name.startswith("_"):
            continue
        value = getattr(fedmedclip, name)
        home, inner = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        found[name] = f"{home}.{inner}" if home and inner else f"fedmedclip.{name}"
    return found


def _as_heading(name: str) -> str:
    options = {"heading": name, "toc_label": name, "heading_level": 2, "show_root_heading": "true"}
    options["show_root_toc_entry"] = "true"
    return "\n".join(f"      {option}: {value}" for option, value in options.items())


def packages() -> list[str]:
    """Return all packages below `fedmedclip`."""
    return sorted(name for name, file in modules().items() if file.name == "__init__.py" and "." in name)


def module_pages() -> dict[str, str]:
    """Return a page for each package, by its path: the package's docstring and its modules."""
    return {f"{FOLDER}/{package}.md": _module_page(package) for package in packages()}


def _module_page(package: str) -> str:
    inside = [
        name
        for name, file in modules().items()
        if name.rpartition(".")[0] == package and file.stem != "__init__"
    ]
    parts = [f"# {package.removeprefix('fedmedclip.')}", f"::: {package}\n    options:\n      members: false"]
    for name in inside:
        parts.append(f"## `{name.rpartition('.')[2]}`")
        parts.append(f"::: {name}{_without_public_names(name)}")
    return "\n\n".join(parts) + "\n"


def _without_public_names(module: str) -> str:
    """Return the options that leave out what stands on the first page: one anchor has one place only."""
    defined = [path.rpartition(".")[::2] for path in public_names().values()]
    patterns = [f"!^{name}$" for home, name in defined if home == module]
    if not patterns:
        return ""
    filters = "".join(f'\n        - "{pattern}"' for pattern in ("!^_[^_]", *patterns))
    return f"\n    options:\n      filters:{filters}"
