"""The commands of `mae-bench`: their flags, and which function each calls. One file each.

Nothing here imports torch; a command does when it runs.
"""
