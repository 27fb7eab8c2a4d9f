"""`python -m fedmedclip` is the command."""

from fedmedclip.command import main

main()
