"""One command from nothing to a report: the world's data, the demo teacher, CLKD's Table II, the instruments.

budget.py    minutes -> key frames, steps, questions
origin.py    the teacher: what it is, and whether it was made for this world
plan.py      the table of recipes/ with this call's paths and numbers
record.py    quickstart.json: what this folder is, what is done, how long it took
stages.py    the stages in their order, each a few ordinary command lines
run.py       one stage after the other; what is there is kept
recipes/     the table and the students' recipe
teacher/     the demo teacher
"""
