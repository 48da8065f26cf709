"""``python -m deeplayer_cli``."""

from deeplayer_cli.app import main

main()
