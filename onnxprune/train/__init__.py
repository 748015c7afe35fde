"""Training with onnxruntime alone: the step is an ONNX model, the loop runs it."""

from onnxprune.train.batchnorm import live, reestimate
from onnxprune.train.finetune import finetune, fit
from onnxprune.train.fit import Finetuned
from onnxprune.train.loop import Epoch, Evaluated, Trained, train
from onnxprune.train.objective import Objective, Source, objective
from onnxprune.train.optimizers import SGD, AdamW, Optimizer
from onnxprune.train.options import TrainOptions
from onnxprune.train.runner import Runner
from onnxprune.train.schedules import schedule
from onnxprune.train.step import Step, StepOptions, training_step
from onnxprune.train.trainable import trainable, untie

__all__ = [
    "SGD",
    "AdamW",
    "Epoch",
    "Evaluated",
    "Finetuned",
    "Objective",
    "Optimizer",
    "Runner",
    "Source",
    "Step",
    "StepOptions",
    "TrainOptions",
    "Trained",
    "finetune",
    "fit",
    "live",
    "objective",
    "reestimate",
    "schedule",
    "train",
    "trainable",
    "training_step",
    "untie",
]
