"""A run folder: its files, its event log, the tables made from the log, and checkpoints.

The room also passes the events of a search on to trackers such as TensorBoard.

May import: spaces, corpus, hparams and the ground floor; pyarrow, and pandas in `tables` and
`recorder`.
"""
