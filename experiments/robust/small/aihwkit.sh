#!/bin/bash
# aihwkit's hardware-aware training without converters and noise of the periphery, trained into FOLDER, beside what final.yaml
# has recorded: aihwkit.sh FOLDER
set -e
here="$(dirname "$0")"
name="aihwkit, ideal converters"
python "$here/../../tune/aihwkit_hwa.py" --config "$here/final.yaml" --forward ideal --label "$name" --seeds 1 2 3 4 5 --out "$1"
for noise in gaussian laplace pcm-nandakumar-2019; do
  levels="0 0.05 0.1 0.15 0.2"
  [ $noise = laplace ] && levels="0.05 0.1"
  [ $noise = pcm-nandakumar-2019 ] && levels="1d 1y"
  noiserobust evaluate --model experiments/cifar10_jpeg/narrow.py:resnet --data npz:cifar10-jpeg.npz --noise $noise --levels $levels \
                       --draws 10 --seed 1 --examples 2000 --weights "$1"/seed*/best.safetensors \
                       --out "$here/final/evaluate/aihwkit-$noise"
done
