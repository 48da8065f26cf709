"""One file per command: options in, one library call, rows or a table out.

Commands import the library when they run, so that ``--help`` needs no torch. They share:

options.py        options of several commands; cluster.py: those of a Ray cluster; outputs.py: --csv and --plot
requests.py       opens the sources; comparing.py: for commands that run several methods; method_list.py: `--methods`
progress.py       the progress bar; stopping.py: Ctrl-C and SIGTERM
printing.py       comparisons as tables, text or JSON
configuration.py  ``deeplayer.toml``
usage.py          wrong words of a command line, as a sentence; exit_codes.py
streams.py        stdin, stdout and stderr
"""
