#!/bin/bash
# Evaluates the last epoch of all trainings of a sweep's folder, as tables 1 to 3 evaluate the best: last.sh FOLDER
here="$(dirname "$0")"
for noise in gaussian laplace; do
  levels="0 0.05 0.1 0.15 0.2"
  [ $noise = laplace ] && levels="0.05 0.1"
  weights=$(python "$here/../../trained.py" "$1" "$here"/table[123].yaml)
  noiserobust evaluate --executor processes --model experiments/cifar10_jpeg/narrow.py:resnet --data npz:cifar10-jpeg.npz \
                       --weights $weights --noise $noise --levels $levels --draws 10 --examples 2000 --out "$here/last/evaluate/$noise"
done
