"""Distributions of somebody else, as an installer lays them out in a folder on the path."""


def install(folder, name, modules, entry_points):
    """Lay out a distribution: `modules` are sources by name, `entry_points` {group: {name: value}}."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, values in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in values.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
