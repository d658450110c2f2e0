"""Hyperparameter search on Ray Tune for the recurrent models of Google's seq2seq framework.

The rooms, from the ground up: hparams and corpus; nn and spaces; runs; training and results;
display; tuning and report; whatif; cli. ARCHITECTURE.md says what is in each, and how a report
travels through them.
"""

__version__ = "0.1.0"
