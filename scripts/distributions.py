"""What the wheel and the sdist must contain, and what they must not: distributions.py FOLDER."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_SDIST = (
    "tests/conftest.py",
    "docs/conf.py",
    "examples/quickstart.py",
    "benchmarks/README.md",
    "scripts/errors.py",
    "requirements/constraints.txt",
    "Makefile",
    "README.md",
    "LICENSE",
)


def in_wheel() -> set[str]:
    """Every module and data file of the package as the checkout has them."""
    package = ROOT / "pyro_amortized"
    files = [p for p in package.rglob("*") if p.suffix in (".py", ".csv") or p.name == "py.typed"]
    return {p.relative_to(ROOT).as_posix() for p in files}


def main(folder: Path) -> None:
    """Print what was checked, or end with what is missing."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    expected = in_wheel()
    assert {"pyro_amortized/py.typed", "pyro_amortized/datasets/theophylline.csv"} <= expected
    missing = sorted(expected - names) + sorted((expected | set(IN_SDIST)) - sources)
    others = {name.partition("/")[0] for name in names} - {"pyro_amortized"}
    strangers = sorted(name for name in others if not name.endswith(".dist-info"))
    if missing or strangers:
        sys.exit(f"missing from the distributions: {missing}; not of the package: {strangers}")
    print(f"{wheel.name}: {len(names)} files; {sdist.name}: {len(sources)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
