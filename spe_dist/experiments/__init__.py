"""The paper's tables as a command: an experiment file says what is compared, a runner makes what is missing.

file.py      the experiment file, read strictly
settings.py  which settings each kind of work knows
pieces.py    the pieces of work that its tables need
plan.py      which pieces the chosen rows need, and what each piece needs
record.py    what was asked of a piece, and how far it is
process.py   one command that runs, is stopped, or has failed
runner.py    the order of the pieces, and what is said meanwhile
table.py     mean and standard deviation over seeds, as Markdown and CSV
picture.py   the same as pictures
report.py    all that is printed and written of the results
"""
