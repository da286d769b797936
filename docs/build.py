"""Builds the site from docs/: reference pages from the code, equations as MathML, then Zensical, warnings as errors.

    python docs/build.py            # into build/site

Pages are plain Markdown that GitHub shows too; equations are fenced as ```math or stand between $` and `$. MathML
needs no script and no font from the network. Zensical is the maintained successor of Material for MkDocs.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from latex2mathml.converter import convert

from serm.reference import commands, configuration

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "docs"


def main() -> None:
    """Stage the pages and build the site."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for page in sorted((ROOT / "docs").rglob("*")):
        if page.suffix in (".md", ".css", ".png", ".svg"):
            target = STAGE / page.relative_to(ROOT / "docs")
            target.parent.mkdir(parents=True, exist_ok=True)
            if page.suffix == ".md":
                target.write_text(with_mathml(page.read_text(encoding="utf-8")), encoding="utf-8")
            else:
                shutil.copyfile(page, target)
    (STAGE / "reference").mkdir(exist_ok=True)
    (STAGE / "reference" / "configuration.md").write_text(configuration(), encoding="utf-8")
    (STAGE / "reference" / "commands.md").write_text(commands(), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False)
    sys.exit(done.returncode)


def with_mathml(text: str) -> str:
    """Markdown with its equations as MathML."""
    text = re.sub(
        r"^```math\n(.*?)\n```$",
        lambda found: f'<div class="equation">{convert(found[1].replace(chr(10), " "), display="block")}</div>',
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    return re.sub(r"\$`(.+?)`\$", lambda found: f"<span>{convert(found[1])}</span>", text)


if __name__ == "__main__":
    main()
