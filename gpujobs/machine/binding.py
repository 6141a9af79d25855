"""Which module the name ``pynvml`` leads to, and which installed package brought it; without importing it."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence

from gpujobs.facts import BindingFacts, Distribution

_NAMES = ("nvidia-ml-py", "pynvml", "nvidia-ml-py3")  # all that ever brought a module of that name


def binding(path: Sequence[str] | None = None) -> BindingFacts:
    """What would be imported from these folders; from where we import if none are given."""
    folders = list(sys.path if path is None else path)
    python = sys.executable or "python3"
    spec = importlib.machinery.PathFinder.find_spec("pynvml", folders)
    if spec is None:
        return BindingFacts(python, distributions=tuple(_distributions(folders, None)))
    origin = os.path.abspath(spec.origin) if spec.origin else None
    code_free = () if origin else tuple(spec.submodule_search_locations or ())
    return BindingFacts(python, origin, code_free, tuple(_distributions(folders, origin)))


def _distributions(folders: list[str], origin: str | None) -> Iterator[Distribution]:
    for name in _NAMES:
        for one in importlib.metadata.distributions(name=name, path=folders):
            yield Distribution(name, _version(one), _owns(one, origin))
            break  # the first on the path is the one that counts


def _version(one: importlib.metadata.Distribution) -> str | None:
    try:
        return one.version
    except Exception:  # noqa: BLE001  # broken metadata fail in ways of their own: then the version is not known
        return None


def _owns(one: importlib.metadata.Distribution, origin: str | None) -> bool | None:
    """Whether a file is on a package's list."""
    if origin is None:
        return False
    try:
        files = one.files
    except Exception:  # noqa: BLE001  # the same
        return None
    if files is None:
        return None
    real = os.path.realpath(origin)
    return any(os.path.realpath(str(one.locate_file(file))) == real for file in files if file.name in origin)
