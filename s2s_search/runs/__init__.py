"""A run folder: its files, its event log, the tables made from the log, checkpoints, and other tools that hear of it.

May import: spaces, corpus, hparams and the ground floor; pyarrow, and pandas in `tables` and `recorder`.
"""
