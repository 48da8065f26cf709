from __future__ import annotations

import subprocess
import sys

ROOMS = ["boxes", "evaluation", "imaging", "schema", "sinks", "sources"]


def test_rows_boxes_images_and_scores_need_no_model_library() -> None:
    code = f"import sys; from deeplayer_cli import {', '.join(ROOMS)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
