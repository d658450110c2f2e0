"""Hyperparameter search on Ray Tune for the recurrent models of Google's seq2seq framework, in PyTorch.

Read in this order: table, rules, hparams; text_files, cache, corpus, metrics; space_files, dimensions, spaces,
samplers; nn: cells, encoders, bridges, attention, decoders, models, stepping, generate; fused, fused_attention,
compiled, products and loss, which compute the same sooner;
tf_variables, batches, optim, training, checkpoints, decoding; events, history, failures, results, ranking, progress,
recorder; schedulers, cluster, tuning; plan; cli.
"""

__version__ = "0.1.0"
