#!/bin/sh
# The main job from end to end, on data drawn here: a teacher for ordinary roads, a student with half of its blocks
# distilled on ordinary roads and corner cases, answers, scores. About eight minutes on two cores; everything lies in demo/.
set -eu
BIN=${BIN:-.venv/bin}

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }

say "1/6  draw driving scenes (DriveLM and CODA-LM formats)"
rm -rf demo
"$BIN/python" examples/make_driving_data.py demo/data

say "2/6  look at the data"
"$BIN/drivedistill" data check recipes/tiny_dis.yaml

say "3/6  train the teacher on ordinary roads"
"$BIN/drivedistill" train recipes/tiny_teacher.yaml --out demo/teacher

say "4/6  distil a student with half of its blocks"
"$BIN/drivedistill" distill recipes/tiny_dis.yaml --out demo/student

say "5/6  both answer the questions of held-out scenes"
for run in teacher student; do
    "$BIN/drivedistill" predict "demo/$run" --split val
done

say "6/6  scores"
for run in teacher student; do
    printf '\n%s\n' "$run"
    "$BIN/drivedistill" score "demo/$run/predictions/val-greedy.jsonl" --out "demo/$run/results.json"
done
