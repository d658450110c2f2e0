"""The two models in PyTorch: cells, encoders, bridges, attention, decoders, and decoding.

`fast` holds faster loops over time, which compute the same numbers up to rounding.
May import: hparams, corpus and the ground floor.
"""
