#!/bin/bash
# Table 5 of the RWP paper, of images in DATA/train/<class>/* and DATA/val/<class>/*, on GPUS GPUs of this machine (by default
# two), and what the networks keep under noise on weights: imagenet.sh DATA OUT [GPUS]
set -e
here="$(dirname "$0")"
for model in vgg16_bn resnet18 resnet50; do
  for method in sgd sam rwp; do
    torchrun --nproc-per-node "${3:-2}" "$here/imagenet.py" --data "$1" --model torchvision.models:$model --method $method \
             --out "$2/$model-$method"
  done
  noiserobust evaluate --model torchvision.models:$model --weights "$2/$model"-*/last.safetensors \
                       --data "imagefolder:$1@size=224,resize=256" --normalize imagenet --noise gaussian --levels 0 0.05 0.1 \
                       --draws 10 --out "$2/evaluate/$model"
done
