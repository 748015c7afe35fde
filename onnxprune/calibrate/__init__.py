"""What reaches the weights of a model when it runs on data: second moments, streamed, in bounded memory."""

from onnxprune.calibrate.collect import Observed, collect
from onnxprune.calibrate.contraction import Contraction, contractions
from onnxprune.calibrate.moments import Sums
from onnxprune.calibrate.walk import Walk

__all__ = ["Contraction", "Observed", "Sums", "Walk", "collect", "contractions"]
