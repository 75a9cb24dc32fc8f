#!/bin/bash
# The default recipe with a clean teacher, SGD of parts.yaml in the sweeps SWEEPS, trained into FOLDER and evaluated beside what
# parts.yaml has recorded: distill.sh SWEEPS FOLDER
set -e
here="$(dirname "$0")"
teachers=$(python "$here/../../trained.py" "$1" "$here/parts.yaml" --methods sgd)
python "$here/../distill.py" --config "$here/parts.yaml" --seeds 0 6 7 --teachers $teachers --out "$2"
for seed in . seed0 seed6 seed7; do
  mkdir -p "$here/parts/train/distilled/$seed"
  cp "$2/$seed"/*.[cj]s* "$here/parts/train/distilled/$seed"
done
for noise in gaussian laplace pcm-nandakumar-2019; do
  levels="0 0.05 0.1 0.15 0.2"
  [ $noise = laplace ] && levels="0.05 0.1"
  [ $noise = pcm-nandakumar-2019 ] && levels="1d 1y"
  noiserobust evaluate --model experiments/cifar10_jpeg/narrow.py:resnet --data npz:cifar10-jpeg.npz --noise $noise --levels $levels \
                       --draws 10 --examples 2000 --weights "$2"/seed*/best.safetensors --out "$here/parts/evaluate/distilled-$noise"
done
