"""``python -m holotype_spec.pages FOLDER``: write the pages of the catalogue."""

import sys
from pathlib import Path

from holotype_spec.pages import COMMAND, write

if len(sys.argv) != 2:
    sys.exit(f"expected the folder to write to and nothing else: {COMMAND}")
write(Path(sys.argv[1]))
