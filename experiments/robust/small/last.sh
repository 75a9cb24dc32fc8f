#!/bin/bash
# Evaluates the last epoch of the recipe and its rivals, as final.yaml evaluates the best: last.sh SWEEPS OUT
set -e
here="$(dirname "$0")"
weights=$(python "$here/../../trained.py" "$1" "$here/final.yaml")
for noise in gaussian pcm-nandakumar-2019; do
  levels="0 0.1 0.2"
  [ $noise = pcm-nandakumar-2019 ] && levels="1d 1y"
  noiserobust evaluate --executor processes --model experiments/cifar10_jpeg/narrow.py:resnet --data npz:cifar10-jpeg.npz \
                       --weights $weights --noise $noise --levels $levels --draws 10 --seed 1 --examples 2000 \
                       --out "$2/evaluate/$noise"
done
