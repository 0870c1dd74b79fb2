"""The methods of a fit by what they have in common, and the sites of a transcoder.

What each trait means for one fit's settings is config.py's and fit_checks.py's; how a method is
fitted is methods.py's.
"""

from __future__ import annotations

from assets.activations.site_names import SiteKind

CONTROL_METHODS = ("random", "permuted", "covariance")
METHODS_WITHOUT_RANK = ("diff_means",)
SUPERVISED_METHODS = ("diff_means",)
# Methods whose coefficients come from the penalised non-negative solve on sparse rows.
SPARSE_METHODS = ("snmf", "random", "permuted", "covariance")
# Methods that go on until something no longer falls.
ITERATED_METHODS = ("snmf", "permuted", "sae", "transcoder", "kmeans", "nmf")
# Methods whose encoder gives the coefficients of new tokens; of the others the dictionary does.
ENCODED_METHODS = ("sae", "transcoder", "kmeans")
# Methods trained by gradient steps on batches of tokens.
TRAINED_METHODS = ("sae", "transcoder")
TRAINING_SETTINGS = ("active_features", "learning_rate", "batch_tokens")
TRANSCODER_KIND: SiteKind = "mlp_out"
TRANSCODER_INPUT_KIND: SiteKind = "mlp_in"
