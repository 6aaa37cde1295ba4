"""The command line, `synicix-run`: one light module per group of commands.

At module level they import click and each other only, so that ``--help`` costs next to nothing. What a command needs is
imported in its body.
"""
