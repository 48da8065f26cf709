from __future__ import annotations

import subprocess
import sys

MODULES = ["boxes", "evaluation", "images.decode", "runtime.run", "schema", "sinks", "sources"]


def test_rows_boxes_images_and_scores_need_no_model_library() -> None:
    imports = "; ".join(f"import deeplayer_cli.{module}" for module in MODULES)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
