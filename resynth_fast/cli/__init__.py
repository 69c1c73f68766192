"""The command line `resynth`: one module per command; `__main__` assembles them and turns errors into exit codes.

Results go to stdout, progress and errors to stderr. Command modules import what they run inside the command, so that
`resynth --help` stays fast.
"""
