"""Evaluation: accuracy of predictions, and comparisons of methods.

score.py             accuracies with intervals; ranking.py: how well the score of a row tells right from wrong
gold.py              gold boxes of another file; gold_check.py: boxes and ids that are written otherwise
agreement.py         whether a file still agrees with the record of its run
image_keys.py        which rows are about one image
compare.py           paired differences between methods
splits.py            the same by split; published_tables.py: published figures beside them
matching.py          the settings of a comparison, at equal keep or at equal cost
running.py           one model answers the same rows under several settings; results.py: these answers on disk
sweep.py             which layer to prune after; sweeping.py: what runs for it
attention_maps.py    what a model attends to; target_attention.py: how much of it falls on the target
diagnosis.py         attention layer by layer; layer_diagnosis.py: one layer, in figures and in a sentence
positional_bias.py   attention and place; prior_effect.py: what dividing by a prior does
outcomes.py          the study at equal cost: which rows were right; pricing.py, line_costs.py: what each line costs
lmms_eval/           deeplayer as a model of lmms-eval
"""

from deeplayer_cli.evaluation.agreement import disagreements
from deeplayer_cli.evaluation.compare import compare, line_called
from deeplayer_cli.evaluation.gold import read_gold
from deeplayer_cli.evaluation.results import read_runs, result_files
from deeplayer_cli.evaluation.score import Rate, Report, Summary, score

__all__ = [
    "Rate",
    "Report",
    "Summary",
    "compare",
    "disagreements",
    "line_called",
    "read_gold",
    "read_runs",
    "result_files",
    "score",
]
