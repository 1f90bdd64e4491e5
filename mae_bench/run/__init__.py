"""The folder of a run: its files, as it is written, and as it is found."""
