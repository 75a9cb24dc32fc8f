#!/bin/bash
# Evaluates the last epoch of what tables 1 to 3 have trained, as they evaluate the best: last.sh SWEEPS OUT
set -e
here="$(dirname "$0")"
weights=$(python "$here/../../trained.py" "$1" "$here"/table[123].yaml)
for noise in gaussian laplace; do
  levels="0 0.05 0.1 0.15 0.2"
  [ $noise = laplace ] && levels="0.05 0.1"
  noiserobust evaluate --executor processes --model experiments/cifar10_jpeg/narrow.py:resnet --data npz:cifar10-jpeg.npz \
                       --weights $weights --noise $noise --levels $levels --draws 10 --examples 2000 --out "$2/evaluate/$noise"
done
