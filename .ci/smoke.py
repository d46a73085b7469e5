"""Install each of the given files into an empty environment and run the first example of README.md there.

    python .ci/smoke.py dist/*.whl dist/*.tar.gz

What is installed must be all that the example needs; pip takes the versions of constraints.txt.
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = """
from importlib import metadata, resources
import skae
assert "site-packages" in skae.__file__, skae.__file__
assert metadata.version("skae") == skae.__version__
assert resources.files("skae").joinpath("py.typed").is_file()
"""


def smoke(path):
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[1]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "empty", with_pip=True)
        python = Path(folder) / "empty" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", path.resolve()]
        subprocess.run(install, check=True)
        script = Path(folder) / "example.py"
        script.write_text(CHECKS + example)
        found = subprocess.run([python, "-W", "error", script], cwd=folder, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"{path.name}: the example failed\n{found.stdout}{found.stderr}")
    print(f"{path.name}: installed into an empty environment; README's first example prints {found.stdout.strip()}")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        smoke(Path(name))
