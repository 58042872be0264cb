"""What a stage depends on besides its parameters: the code that it runs and the files that it is pointed at.

The code of a stage is found without importing it: the module that defines the stage's function, every module
of this package that it imports, and so on. `from workbench.circuits import trace` follows the name to the
module that defines it (or, where the package looks names up when asked, to all of its modules), so that an
edit of one stage's code leaves its neighbours' alone. Comments, layout and
docstrings do not count; data files that lie beside a reached module do.

Limits: a module imported by a computed name is not seen, and neither is a changed version of another
package (the run record has the versions).
"""

from __future__ import annotations

import ast
import copy
import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.artifacts import sha256_file, sha256_json
from workbench.assets import PACKAGE, asset_folder

ROOT = "workbench"
HASHED_WHOLE_BYTES = 256 * 2**20
EMBEDDED_PATHS = {"embedded": ("data", "model")}


def module_file(name: str) -> Path | None:
    """The source of a module of this package, or None if it is not one."""
    base = PACKAGE.parent.joinpath(*name.split("."))
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    source = base.with_suffix(".py")
    return source if source.is_file() else None


@lru_cache(maxsize=512)
def _tree(path: Path, stamp: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _parse(path: Path) -> ast.Module:
    return _tree(path, path.stat().st_mtime_ns)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The module that an import statement names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    keep = len(parts) - node.level + (1 if is_package else 0)
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def _imports(module: str, path: Path) -> Iterator[tuple[str, str | None]]:
    """(module, imported name or None) of every import statement of this package, wherever it stands."""
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == ROOT)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module, path.name == "__init__.py")
            if source.split(".")[0] == ROOT:
                yield from ((source, alias.name) for alias in node.names)


def definers(module: str, name: str | None) -> set[str]:
    """The modules in which `module.name` is defined: itself, a submodule, or where a package takes it from."""
    path = module_file(module)
    if path is None:
        return set()
    if name and path.name == "__init__.py":
        sources = [(m, n) for m, n in _imports(module, path) if n == name and m != module]
        if sources:
            return set().union(*(definers(m, n) for m, n in sources))
        if module_file(f"{module}.{name}"):
            return {f"{module}.{name}"}
        if name not in _top_level(_parse(path)):
            return {module, *_submodules(module, path.parent)}
    return {module}


def _top_level(tree: ast.Module) -> set[str]:
    """Names that a module defines itself by `def`, `class` or assignment."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stores = (n for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) for n in ast.walk(node))
    return names | {n.id for n in stores if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _submodules(module: str, folder: Path) -> set[str]:
    """Every module in a package's folder: what a name may come from that the package looks up when asked."""
    return {f"{module}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}


def reached_modules(module: str, function: str) -> set[str]:
    """Every module of this package whose code `module.function` can run, by its import statements."""
    todo, reached = definers(module, function), set()
    while todo:
        name = todo.pop()
        path = module_file(name)
        if name not in reached and name != ROOT and path is not None:
            reached.add(name)
            todo |= set().union(*(definers(m, n) for m, n in _imports(name, path)))
    return reached


def code_hash(calls: Iterable[str]) -> str:
    """SHA-256 of the code that functions (`module:name`) run: syntax trees without docstrings, data beside them."""
    hashes = {}
    for name in sorted(set().union(*(reached_modules(*call.split(":")) for call in calls))):
        path = module_file(name)
        assert path is not None
        hashes[name] = _module_hash(path, path.stat().st_mtime_ns)
        hashes |= {f.relative_to(PACKAGE).as_posix(): sha256_file(f) for f in _data_beside(path)}
    if any(name.startswith(f"{ROOT}.panels") for name in hashes):
        hashes["widgets"] = path_fingerprint(asset_folder("widgets"))
    return sha256_json(hashes)


def _data_beside(path: Path) -> list[Path]:
    """Templates and tables in a package's own folder (not the package's top folder, which holds the copies)."""
    if path.parent == PACKAGE:
        return []
    files = (f for f in path.parent.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sorted(f for f in files if f.suffix not in {".py", ".md"})


@lru_cache(maxsize=512)
def _module_hash(path: Path, stamp: int) -> str:
    """SHA-256 of a module's syntax tree without docstrings and positions."""
    tree = copy.deepcopy(_tree(path, stamp))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            del body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def notebook_hash(path: Path) -> str:
    """SHA-256 of a notebook's cells (kind, source, tags): running or re-saving it changes nothing."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    return sha256_json([(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells])


def path_fingerprint(path: Path) -> str:
    """A text that changes with a file or folder: SHA-256 of small files, size and time of large ones."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    small = sum(f.stat().st_size for f in files) <= HASHED_WHOLE_BYTES
    entries = []
    for file in files:
        stat = file.stat()
        name = file.relative_to(path).as_posix() if file != path else file.name
        entries.append((name, sha256_file(file) if small else f"{stat.st_size} {stat.st_mtime_ns}"))
    return sha256_json(entries)


def named_paths(values: Iterable[Any], base: Path) -> dict[str, str]:
    """Fingerprints of all parameter values that name an existing file or folder (or the embedded model)."""
    found = {}
    for value in values:
        if isinstance(value, (list, tuple)):
            found |= named_paths(value, base)
        elif isinstance(value, (str, Path)) and str(value):
            found |= {name: path_fingerprint(path) for name, path in _existing(str(value), base).items()}
    return found


def _existing(value: str, base: Path) -> dict[str, Path]:
    """The file or folder that a text names, the matches of a glob, or nothing."""
    if value in EMBEDDED_PATHS:
        folder, *rest = EMBEDDED_PATHS[value]
        return {value: asset_folder(folder).joinpath(*rest)}
    if len(value) > 4096 or "\n" in value or "\0" in value:
        return {}
    text = os.path.expanduser(value)
    names = sorted(glob.glob(text, root_dir=base, recursive=True)) if glob.has_magic(text) else [text]
    return {name: base / name for name in names if (base / name).exists()}
