"""Is a built wheel whole, and does it work where nothing of the checkout is?

`python .ci/check_dist.py names WHEEL` compares its files with those that git knows, `python
.ci/check_dist.py works` runs the main loop with the mpsearch of this interpreter.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = ("solvers", "sensitivity", "models", "reports")  # install inside of mpsearch
MODEL = """
import mpsearch, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
x = torch.randn(64, 1, 8, 8)
sample = {"x0": x, "y": torch.arange(64) % 4}
mpsearch.save(model, "model.pt", example_inputs=(x[:1],), sample=sample)
"""


def expected() -> set[str]:
    """The files of the package in the checkout, as they are called in a wheel."""
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout
    files = [Path(line) for line in listed.splitlines()]
    inside = {str(file) for file in files if file.parts[0] == "mpsearch" and not file.is_symlink()}
    return inside | {f"mpsearch/{file}" for file in files if file.parts[0] in PARTS}


def check_names(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    wrong = sorted(expected() ^ found)
    if wrong:
        sys.exit(f"{wheel}: missing, or not known to git: {', '.join(wrong)}")
    print(f"{wheel}: {len(found)} files, all that git knows and no other")


def check_works() -> None:
    program = str(Path(sys.executable).with_name("mpsearch"))
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            [sys.executable, "-c", MODEL],
            [program, "profile", "model.pt"],
            [program, "solve", "--size", "60%"],
            [program, "apply", "model.pt"],
            [program, "export", "quantized.pt", "--fp32", "model.pt", "-o", "network"],
            [
                program,
                "export",
                "quantized.pt",
                "--fp32",
                "model.pt",
                "--target",
                "cortex-m4",
                "-o",
                "m4",
            ],
            [program, "evaluate", "model.pt", "--assignment", "assignment.json"],
            [program, "report"],
            [program, "gate", "--max-size", "10KB"],
        ):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    print("the installed wheel works: profile, solve, apply, export, evaluate, report, gate")


if __name__ == "__main__":
    check_names(sys.argv[2]) if sys.argv[1] == "names" else check_works()
