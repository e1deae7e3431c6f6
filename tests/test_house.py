"""The house is as its plan says, and its papers name only what is there."""

import ast
import functools
import pathlib
import re

import pytest
import tomllib

from lca_keras.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
HOUSE = ROOT / "lca_keras"
WINGS = sorted(p.parent.name for p in HOUSE.glob("*/__init__.py"))
PACKAGES = ("lca_keras", "tuning", "pipelines", "benchmarks", "tests")
CODE = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/*.md")])


def layers():
    """The wings of the import contract, from the top."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (house,) = [each for each in contracts if each.get("containers") == ["lca_keras"]]
    assert "ignore_imports" not in house
    commands, *wings = [re.split(r" \| ", layer) for layer in house["layers"]]
    return commands, [wing for layer in wings for wing in layer]


def test_a_file_at_the_top_is_a_command():
    files = {path.stem for path in HOUSE.glob("*.py")} - {"__init__", "__main__"}
    named = {module for module, _ in COMMANDS.values()}
    assert files == {n.split(".")[1] for n in named if n.startswith("lca_keras.")}
    commands, _ = layers()
    assert set(commands) == files | {"__main__"}
    for module, what in COMMANDS.values():
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert "def main(argv=None):" in path.read_text(encoding="utf-8")
        assert what


def test_wings_are_those_of_the_contract_and_of_contributing():
    _, wings = layers()
    assert sorted(wings) == WINGS
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^  (\w+)/ ", text, re.M) == wings
    for wing in WINGS:
        modules = [p for p in (HOUSE / wing).glob("*.py") if p.stem != "__init__"]
        assert len(modules) <= 12, wing
        said = ast.get_docstring(ast.parse((HOUSE / wing / "__init__.py").read_text()))
        assert len(said.splitlines()) >= 3, wing
        assert "Imports " in said, wing


def test_no_module_is_long():
    product = [path for path in CODE if path.relative_to(ROOT).parts[0] != "tests"]
    long = {str(p): n for p in product if (n := len(p.read_text().split("\n"))) > 501}
    assert not long


# === Names ===


@functools.cache
def names_in(path):
    """Names that a module, or a class in it, defines: a dict from name to the same."""

    def of(body):
        found = {}
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = of(node.body)
                for base in node.bases:
                    if isinstance(base, ast.Name):
                        found[node.name] |= found.get(base.id) or {}
                for method in ast.walk(node):  # What is set on `self`.
                    if isinstance(method, ast.Attribute) and isinstance(
                        method.ctx, ast.Store
                    ):
                        found[node.name].setdefault(method.attr, {})
            elif isinstance(node, ast.FunctionDef):
                found[node.name] = {}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {(a.asname or a.name).split(".")[0]: {} for a in node.names}
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = getattr(node, "targets", [getattr(node, "target", None)])
                for target in targets:
                    for each in ast.walk(target):
                        if isinstance(each, ast.Name):
                            found[each.id] = {}
            elif isinstance(node, ast.If | ast.Try):
                found |= of(node.body)
        return found

    return of(ast.parse(path.read_text(encoding="utf-8")).body)


def is_there(name):
    """Whether a dotted name is a module of ours, or something that one defines."""
    parts = name.split(".")
    path = ROOT
    for number, part in enumerate(parts):
        if (path / part).is_dir():
            path = path / part
            continue
        if (path / f"{part}.py").exists():
            path, rest = path / f"{part}.py", parts[number + 1 :]
        else:
            path, rest = path / "__init__.py", parts[number:]
        known = names_in(path)
        for each in rest:
            if each not in known:
                return False
            known = known[each]
        return True
    return True


DOTTED = re.compile(rf"`~?((?:{'|'.join(PACKAGES[:4])})(?:\.\w+)+)[`(]")


@pytest.mark.parametrize(
    "path", [*CODE, *PAPERS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_names_in_backticks_are_there(path):
    if path.name == "CHANGELOG.md":
        return
    # A name may be broken over two lines.
    text = path.read_text(encoding="utf-8")
    named = set(DOTTED.findall(text)) - {"lca_keras.json"}  # A file.
    missing = {name for name in named if not is_there(name)}
    if path.suffix == ".md":
        for module in re.findall(r"python -m ([a-z_.]+\w)", text):
            if module.split(".")[0] in PACKAGES and not is_there(module):
                missing.add(module)
        for name in re.findall(r"`((?:\w+/)*\w+\.py)(?:::\w+)*`", text):
            if not list(ROOT.glob(f"{name}")) + list(HOUSE.glob(f"{name}")):
                missing.add(name)
    assert not missing


def test_no_pickles():
    """Nothing is written or read that runs code when it is read."""
    product = [path for path in CODE if ROOT / "tests" not in path.parents]
    call = re.compile(r"pickle\.(load|loads|dump|dumps)\(|allow_pickle=True")
    found = [str(p) for p in product if call.search(p.read_text(encoding="utf-8"))]
    assert found == []
