"""The rules of the house, run with the suite: what no reader should have to check by eye.

The numbers are ceilings with room above what we aim for, not targets. Reads files and runs tools; writes
nothing outside a temporary folder and needs no network.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("colonies", "cli/colonies_cli", "projections/colonies_projections", "workers/colonies_workers")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# One screen holds about 60 lines: a function that does not fit has more than one job.
MAX_LINES_PER_FUNCTION = 60
# We aim for modules of 150 to 250 lines. Beyond 400 nobody reads one through, and it holds two ideas.
MAX_LINES_PER_MODULE = 400

TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md"),
    *("cli", "colonies", "deploy", "docs", "examples", "projections", "tests", "workers"),
    *("pyproject.toml", "requirements.txt"),
}

# A registry's host would tie everybody to it; a home folder, and the folder this runs in, are somebody's own.
# (Does not match itself.)
FOREIGN = re.compile(
    rf"""pypi[.]org | python[h]osted[.]
        | (?<![\w.~}}*-]) / (?: root | home/\w[\w.-]* | [U]sers/\w[\w.-]* ) /
        | {re.escape(str(ROOT)) if len(ROOT.parts) > 2 else "(?!)"}""",
    re.VERBOSE,
)

# What colonies.core may import of colonies, beside itself: the errors, which are pure as well.
CORE_MAY_IMPORT = "colonies.errors."

# Comes with a package that we do name, in the one version that fits it.
COMES_WITH_ANOTHER = {"pydantic-core"}


def ignored(path: Path) -> bool:
    """Whether .gitignore names it. Our patterns are plain names, so git itself is not needed to tell."""
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for pattern in patterns:
        anchored = pattern.startswith("/")
        if fnmatch.fnmatch(path.name, pattern.strip("/")) and (not anchored or path.parent == ROOT):
            return True
    return path == ROOT / ".git"


def ours(folder: Path = ROOT) -> Iterator[Path]:
    """Every file of the project below `folder`."""
    for path in sorted(folder.iterdir()):
        if ignored(path):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from ours(path)
        else:
            yield path


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in ours(ROOT / package) if path.suffix == ".py"]


def run(*command: str) -> None:
    """Runs a tool of this environment in the project's folder; its output is the failure's message."""
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines from `def` to the end, without the docstring: explaining is never too long."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Each thing that a module imports from outside its folder, in full, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((f"{alias.name}.", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((f"{node.module}.{alias.name}.", node.lineno) for alias in node.names)


def pinned() -> dict[str, list[Requirement]]:
    """What requirements.txt pins, by name. One name may have several pins for several platforms."""
    pins: dict[str, list[Requirement]] = {}
    for line in logical_lines():
        pin = Requirement(line.split(" --hash=")[0])
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def logical_lines(pins: Path = ROOT / "requirements.txt") -> list[str]:
    text = pins.read_text(encoding="utf-8")
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_the_code_passes_the_linter() -> None:
    run(tool("ruff"), "check", ".")


def test_the_code_is_formatted() -> None:
    run(tool("ruff"), "format", "--check", ".")


@pytest.mark.timeout(300)
def test_the_types_hold_in_strict_mode() -> None:
    run(sys.executable, "-m", "mypy")


def test_imports_point_inward_and_the_core_does_no_io() -> None:
    run(tool("lint-imports"), "--no-cache")


def test_the_core_knows_nothing_of_the_shell_around_it() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in ours(ROOT / "colonies" / "core")
        if path.suffix == ".py"
        for name, line in imports(path)
        if name.startswith("colonies.")
        and not name.startswith("colonies.core.")
        and not name.startswith(CORE_MAY_IMPORT)
    ]
    assert not found


def test_the_core_never_reads_the_clock() -> None:
    clock = re.compile(r"\.(now|utcnow|today)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in ours(ROOT / "colonies" / "core")
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if clock.search(line)
    ]
    assert not found


def test_no_module_is_too_long_to_read_through() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in modules()}
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES_PER_MODULE}
    assert lengths
    assert not too_long


def test_every_function_fits_on_a_screen() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": length(function)
        for path in modules()
        for function in functions(ast.parse(path.read_text(encoding="utf-8")))
        if length(function) > MAX_LINES_PER_FUNCTION
    }
    assert not long


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


def test_the_top_folder_holds_only_what_belongs_there() -> None:
    strays = {path.name for path in ROOT.iterdir() if not ignored(path)} - TOP_LEVEL
    assert not strays


def test_no_file_names_a_registry_or_a_folder_of_its_authors_machine() -> None:
    found = []
    for path in ours():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        found += [
            f"{path.relative_to(ROOT)}:{number}: {match[0]}"
            for number, line in enumerate(lines, 1)
            if (match := FOREIGN.search(line))
        ]
    assert not found


@pytest.mark.parametrize("name", ["requirements.txt", "tests/fuzz/requirements.txt"])
def test_every_pin_is_exact_and_hashed_and_names_no_place(name: str) -> None:
    lines = logical_lines(ROOT / name)
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line[:100]
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_the_pins_are_what_the_ranges_allow() -> None:
    pins = pinned()
    wanted = [
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *PROJECT["dependency-groups"]["dev"],
    ]
    for requirement in map(Requirement, wanted):
        for pin in pins.get(canonicalize_name(requirement.name), []):
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version), f"{requirement} but {pin} is pinned: make lock"
        assert canonicalize_name(requirement.name) in pins, f"{requirement} is not pinned: make lock"


def names(texts: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in texts}


EXTRA = names(PROJECT["project"]["optional-dependencies"]["otel"])
NEEDS_EXTRA = {"projections/colonies_projections/traces/otlp.py"}


def test_what_an_extra_brings_is_tested_and_no_other_module_is_without_it() -> None:
    assert names(PROJECT["dependency-groups"]["dev"]) >= EXTRA
    found = set()
    for path in modules():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        statements = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        said = {name for node in statements for name in imported(node)}
        if said & {"opentelemetry", "requests", "google"}:
            found.add(path.relative_to(ROOT).as_posix())
    assert found == NEEDS_EXTRA


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The packages that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif node.module and not node.level:
        yield node.module.partition(".")[0]


def test_what_the_packages_import_is_declared() -> None:
    declared = names(PROJECT["project"]["dependencies"]) | EXTRA
    own = {Path(package).name for package in PACKAGES}
    distributions = importlib.metadata.packages_distributions()
    found = {
        f"{path.relative_to(ROOT)}:{line} imports {top}"
        for path in modules()
        for name, line in imports(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names | own
        and not (declared | COMES_WITH_ANOTHER) & {canonicalize_name(d) for d in distributions.get(top, [])}
    }
    assert not found


def test_the_wheel_holds_the_four_packages_and_the_brokers_config(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    expected = {"colonies/deploy/dev.conf"}
    for package in map(Path, PACKAGES):
        expected |= {path.relative_to(ROOT / package.parent).as_posix() for path in ours(ROOT / package)}
        assert f"{package.name}/py.typed" in names
    assert names == expected
