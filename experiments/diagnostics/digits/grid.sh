#!/bin/bash
# All trainings, three seeds each, then their evaluation.
N="${NOISEROBUST:-noiserobust}"
gauss="--method.noise.name gaussian --method.noise.level"
ramp="--method.schedule.name quadratic --method.schedule.fraction 0.7"
train() { $N train --config digits.yaml --label $1 ${@:2} --seeds 0 1 2 --out train/$1; }
train sgd --method.name sgd
for rho in 0.1 0.3 1; do train sam-$rho --method.name sam --method.rho $rho; done
for sigma in 0.1 0.2 0.3 0.4; do train rwp-$sigma --method.name rwp $gauss $sigma; done
train sam-ramp-1 --method.name sam --method.rho 1 $ramp
train rwp-ramp-0.4 --method.name rwp $gauss 0.4 $ramp
for sigma in 0.2 0.3 0.4; do train m-rwp-$sigma --method.name rwp $gauss $sigma --method.perturbed_weight 0.5; done
for share in 0.25 0.75; do train m-rwp-0.3-$share --method.name rwp $gauss 0.3 --method.perturbed_weight $share; done
train asam-1 --method.name asam --method.rho 1
train arwp-0.3 --method.name arwp $gauss 0.3
train m-arwp-0.3 --method.name arwp $gauss 0.3 --method.perturbed_weight 0.5
train was --method.name was
$N evaluate --model digits-cnn --weights train/*/seed*/best.safetensors --data digits --noise gaussian \
            --levels 0 0.05 0.1 0.15 0.2 0.25 0.3 --draws 10 --out evaluate
