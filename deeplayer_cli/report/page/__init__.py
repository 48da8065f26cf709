"""The HTML page of one or several runs.

runs.py        prediction files to runs with their scores
rows.py        the rows of all runs, joined by id: the data behind the gallery
thumbnails.py  the rows' images, as data URIs
chart.py       accuracy against cost, as the numbers of a drawing
formatting.py  numbers as text
render.py      everything into one file, by the templates in templates/
"""

from deeplayer_cli.report.page.render import PageOptions, PageSummary, require_jinja, write_page
from deeplayer_cli.report.page.runs import prediction_files

__all__ = ["PageOptions", "PageSummary", "prediction_files", "require_jinja", "write_page"]
