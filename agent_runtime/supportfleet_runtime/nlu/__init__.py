"""Intents: from a customer's text to what they want, and how sure that is.

A model is an artifact (see ``supportfleet_runtime.models``) of four files: ``model.onnx``, a linear classifier over
hashed n-grams; ``labels.json``, the intents in the order of its outputs; ``model.json``, the featuriser's settings, the
out-of-scope label, the threshold, and the figures it was judged by; ``selftest.json``, messages with the answers they
must get. ``train`` makes one, ``load`` runs one; both use the same featuriser, and neither ONNX Runtime nor
scikit-learn is imported before it is needed.

Why this kind of model: it is trained in seconds on one core by whoever owns the examples, answers in a fraction of a
millisecond within a few megabytes, and on public intent data stands beside far larger ones (see docs/models.md).
"""

from supportfleet_runtime.nlu.classifier import IntentClassifier, ModelInfo, Prediction, load
from supportfleet_runtime.nlu.errors import DatasetError, ModelLoadError, NluError, SelfTestError, TrainingError

__all__ = [
    "DatasetError",
    "IntentClassifier",
    "ModelInfo",
    "ModelLoadError",
    "NluError",
    "Prediction",
    "SelfTestError",
    "TrainingError",
    "load",
]
